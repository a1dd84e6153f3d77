"""Submitted calls of writing tools, for idempotency and to announce the owners of jobs."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class SubmissionState(StrEnum):
    SENT = "sent"
    DONE = "done"
    UNKNOWN = "unknown"


class SubmissionRow(Base):
    """One call. Calls that certainly had no effect are deleted.

    `key` is the idempotency key, `digest` the hash of the request, `result` the answer of the tool.
    `announced` is false while an accepted job still has to be published to the stream.
    """

    __tablename__ = "submissions"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("users.id", ondelete="CASCADE"))
    key: Mapped[str | None] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(Text)
    tool: Mapped[str] = mapped_column(Text)
    workspace: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    result: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    job_id: Mapped[str | None] = mapped_column(Text)
    announced: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        CheckConstraint("state IN ('sent', 'done', 'unknown')", name="submission_state_known"),
        UniqueConstraint("user_id", "key", name="uq_submissions_key"),
        Index("ix_submissions_created", "created_at"),
        Index("ix_submissions_outbox", "created_at", postgresql_where=text("NOT announced")),
    )
