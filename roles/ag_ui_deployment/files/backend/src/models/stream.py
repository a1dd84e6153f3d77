"""The stream status and the dead letters in the API of administrators."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field

from src.models.page import Page


class LetterState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    ALL = "all"


class ConsumerState(BaseModel):
    """A member of the group; `idle_ms` is how long ago it last asked for entries."""

    name: str
    pending: int
    idle_ms: int


class GroupState(BaseModel):
    """The group that stores events. `lag` is null where Redis does not know it."""

    name: str
    lag: int | None
    pending: int
    last_delivered_id: str
    consumers: list[ConsumerState]


class StreamReport(BaseModel):
    """`group` is null until the first instance has made it.

    `entries_added` counts all entries since the stream was made: its increase is the rate of events.
    """

    stream: str
    length: int
    entries_added: int
    first_id: str | None
    last_id: str | None
    group: GroupState | None
    open_dead_letters: int


class DeadLetter(BaseModel):
    """An entry that could not be stored. `fields` is the beginning of what was kept, as JSON."""

    id: str
    reason: str
    fields: str
    created_at: datetime
    closed_at: datetime | None
    closed_how: str | None
    closed_by: str | None
    replayed_as: str | None


class DeadLetterPage(Page[DeadLetter]):
    """Dead letters, the newest first."""

    next_before: Annotated[str | None, Field(deprecated=True, description="As next_cursor")]
