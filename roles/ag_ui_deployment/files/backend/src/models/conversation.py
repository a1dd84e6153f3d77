"""Conversations with the agent, their messages and runs."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.models.account import DisplayName
from src.models.page import Page
from src.utils.database import Base
from src.utils.json_types import Json, JsonObject


class RunStatus(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ThreadRow(Base):
    """A conversation. Clients choose the ids, so an id is unique per user only."""

    __tablename__ = "agent_threads"

    owner_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    workspace: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    # Size with messages and runs; null until it is computed.
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (
        Index("ix_agent_threads_updated", "updated_at", "owner_id", "id"),
        Index("ix_agent_threads_owner_updated", "owner_id", "updated_at", "id"),
        Index(
            "ix_agent_threads_uncounted", "owner_id", "id", postgresql_where=text("bytes IS NULL")
        ),
    )


class MessageRow(Base):
    """A message of a conversation as AG-UI's JSON. `place` is its position."""

    __tablename__ = "agent_messages"

    place: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    owner_id: Mapped[UUID] = mapped_column(Uuid)
    thread_id: Mapped[str] = mapped_column(Text)
    message_id: Mapped[str] = mapped_column(Text)
    # json instead of jsonb, which rejects \u0000.
    body: Mapped[JsonObject] = mapped_column(JSON)
    # Size of the body in bytes; null in rows of former releases.
    size: Mapped[int | None] = mapped_column(Integer)

    __table_args__ = (
        ForeignKeyConstraint(
            ["owner_id", "thread_id"],
            ["agent_threads.owner_id", "agent_threads.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("owner_id", "thread_id", "message_id"),
        Index("ix_agent_messages_place", "owner_id", "thread_id", "place"),
    )


class RunRow(Base):
    """A run. `events` is its compressed event log once it has ended."""

    __tablename__ = "agent_runs"

    owner_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    thread_id: Mapped[str] = mapped_column(Text)
    workspace: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    # Code of RUN_ERROR.
    error: Mapped[str | None] = mapped_column(Text)
    usage: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    events: Mapped[bytes | None] = mapped_column(BYTEA, deferred=True)

    __table_args__ = (
        ForeignKeyConstraint(
            ["owner_id", "thread_id"],
            ["agent_threads.owner_id", "agent_threads.id"],
            ondelete="CASCADE",
        ),
        Index("ix_agent_runs_thread", "owner_id", "thread_id", "started_at"),
        Index("ix_agent_runs_on", "started_at", postgresql_where=text("status = 'running'")),
        Index("ix_agent_runs_ended", "ended_at"),
    )


class Run(BaseModel):
    """A run as its owner sees it. `error` is the code of its RUN_ERROR; `usage` counts tokens."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    thread_id: str
    workspace: str
    owner_id: UUID
    status: RunStatus
    error: str | None
    usage: dict[str, int] | None
    started_at: datetime
    ended_at: datetime | None


class ThreadSummary(BaseModel):
    """A conversation in a list. `title` is how its first message begins, until somebody changes it."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner_id: UUID
    workspace: str
    title: str
    created_at: datetime
    updated_at: datetime


class TitleIn(BaseModel):
    """The title of a conversation."""

    title: DisplayName


class ThreadPage(Page[ThreadSummary]):
    """One page of conversations, the latest first."""


class Thread(ThreadSummary):
    """A conversation: its last messages in AG-UI's form, and its runs, the latest first.

    `active_run_id` is the run that is on, null if there is none.
    `next_cursor` is what to ask for as `cursor` to get the messages that came before; null if there
    are none.
    """

    messages: list[Mapping[str, Json]]
    next_cursor: str | None
    earlier: Annotated[int | None, Field(deprecated=True, description="As next_cursor")]
    active_run_id: str | None
    runs: list[Run]
