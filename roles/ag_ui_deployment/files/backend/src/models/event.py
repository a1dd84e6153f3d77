"""Shield events, and the tables of events, dead letters and gaps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Self
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, Text, func
from sqlalchemy.dialects.postgresql import BYTEA, JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base
from src.utils.json_types import Json, JsonObject

# Published by the backend when a tool has accepted a job. It names the owner and the workspace, and
# takes precedence over what producers say, because the backend knows for whom it called the tool.
SUBMISSION = "job:accepted"

_STREAM_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)
_MAX_PART = 2**63 - 1


class StreamId(NamedTuple):
    """The id of an entry of a Redis stream, in the order of Redis."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `<milliseconds>-<sequence>`.

        Raises:
            ValueError: The text is no stream id.
        """
        match = _STREAM_ID.fullmatch(text)
        if match is None or max(parts := [int(part) for part in match.groups()]) > _MAX_PART:
            raise ValueError(f"{text[:64]!r} is no stream id; it looks like 1763856000000-0")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @property
    def is_last_of_millisecond(self) -> bool:
        """Whether this is the last possible id of a millisecond, which no entry has.

        The read position of an empty stream is such an id, made from the clock of Redis.
        """
        return self.seq == _MAX_PART

    def previous(self) -> "StreamId":
        """The greatest id below this one."""
        return StreamId(self.ms, self.seq - 1) if self.seq else StreamId(self.ms - 1, _MAX_PART)

    def next(self) -> "StreamId":
        """The smallest id above this one."""
        if self.seq == _MAX_PART:
            return StreamId(self.ms + 1, 0)
        return StreamId(self.ms, self.seq + 1)


ZERO = StreamId(0, 0)


@dataclass(frozen=True, slots=True)
class ShieldEvent:
    """A valid entry of the stream. `timestamp` is in milliseconds since 1970, UTC."""

    id: StreamId
    event_id: str
    type: str
    timestamp: int
    job_id: str | None
    data: Mapping[str, Json]
    metadata: Mapping[str, Json]

    @property
    def workspace(self) -> str | None:
        value = self.metadata.get("workspace")
        return value if isinstance(value, str) and value else None

    @property
    def user_id(self) -> UUID | None:
        """The owner of the job, None if the event names no valid one."""
        try:
            return UUID(self.metadata["user_id"])
        except (KeyError, ValueError, AttributeError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Poison:
    """An invalid entry. `fields` is its content as JSON, truncated to a bounded size."""

    id: StreamId
    reason: str
    fields: bytes


class EventRow(Base):
    """A Shield event as published. The primary key is its stream id."""

    __tablename__ = "events"

    stream_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    stream_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    event_id: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(Text)
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # json instead of jsonb, which rejects \u0000 and does not keep the order of keys.
    data: Mapped[JsonObject] = mapped_column(JSON)
    # SQLAlchemy reserves the attribute `metadata`.
    event_metadata: Mapped[JsonObject] = mapped_column("metadata", JSON)
    received_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )

    __table_args__ = (Index("ix_events_job", "job_id", "stream_ms", "stream_seq"),)


class DeadLetterRow(Base):
    """An entry of the stream that could not be stored as an event."""

    __tablename__ = "dead_letters"

    stream_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    stream_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    fields: Mapped[bytes] = mapped_column(BYTEA)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # "replayed" or "discarded"; the administrator; the stream id of the replayed entry.
    closed_how: Mapped[str | None] = mapped_column(Text)
    closed_by: Mapped[str | None] = mapped_column(Text)
    replayed_as: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(
            "ix_dead_letters_open",
            "stream_ms",
            "stream_seq",
            postgresql_where=closed_at.is_(None),
        ),
    )


class GapRow(Base):
    """Entries with after < id < before that were removed from the stream before they were stored."""

    __tablename__ = "stream_gaps"

    after_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    after_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    before_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    before_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    entries: Mapped[int] = mapped_column(BigInteger)
    noticed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (Index("ix_stream_gaps_before", "before_ms", "before_seq"),)
