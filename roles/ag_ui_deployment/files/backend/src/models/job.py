"""Jobs: what a list or a detail page shows of them, kept current by the consumer."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, model_validator
from sqlalchemy import BigInteger, DateTime, Float, Index, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class JobRow(Base):
    """One job. `ended_ms`/`ended_seq` is the stream id of its first terminal event."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    # No foreign key: a producer that names a user we do not know must not poison the stream.
    owner_id: Mapped[UUID | None] = mapped_column(Uuid)
    workspace: Mapped[str | None] = mapped_column(Text)
    kind: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    percent: Mapped[float | None] = mapped_column(Float)
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_seq: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_jobs_created", "created_at", "id"),
        Index("ix_jobs_owner_created", "owner_id", "created_at", "id"),
        Index("ix_jobs_workspace_created", "workspace", "created_at", "id"),
        Index("ix_jobs_active", "updated_at", postgresql_where=ended_ms.is_(None)),
    )


class Job(BaseModel):
    """A job as its owner sees it. Times are those of its events; `percent` is 0 to 100."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner_id: UUID | None
    workspace: str | None
    kind: str | None
    status: JobStatus
    percent: float | None
    error: str | None
    result: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None

    @model_validator(mode="after")
    def _all_is_done(self) -> Self:
        # Not stored: of two ends that were reported, the one that counts may arrive second.
        if self.status is JobStatus.COMPLETED:
            self.percent = 100.0
        return self


class JobPage(BaseModel):
    """One page of jobs, newest first; `next_cursor` asks for the next, null on the last page."""

    items: list[Job]
    next_cursor: str | None
