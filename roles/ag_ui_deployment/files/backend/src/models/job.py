"""Jobs: the table, which the consumer updates from events, and their form in the API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import BigInteger, DateTime, Float, Index, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.models.event import StreamId
from src.models.page import Page, PageCursor, PageLimit
from src.models.workspace import DEFAULT_WORKSPACE
from src.utils.database import Base
from src.utils.json_types import Json, JsonObject


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


# Jobs without a workspace belong to the default one.
_WORKSPACE = text(f"coalesce(workspace, '{DEFAULT_WORKSPACE}')")


def displayed_percent(status: JobStatus, percent: float | None) -> float | None:
    """The progress of a job in percent: as reported, but 100 once the job has completed."""
    return 100.0 if status is JobStatus.COMPLETED else percent


class JobRow(Base):
    """A job. `ended_ms` and `ended_seq` form the stream id of its first terminal event."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    # No foreign key: an event that names an unknown user must still be stored.
    owner_id: Mapped[UUID | None] = mapped_column(Uuid)
    workspace: Mapped[str | None] = mapped_column(Text)
    kind: Mapped[str | None] = mapped_column(Text)
    # What the job is about, such as the URL that is crawled; without credentials.
    subject: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    percent: Mapped[float | None] = mapped_column(Float)
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[JsonObject | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_seq: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_jobs_created", "created_at", "id"),
        # For repositories/job_list.py: the jobs in a status of everybody, of a workspace, and of an
        # owner in a workspace, each in order of creation.
        Index("ix_jobs_status", "status", "created_at", "id"),
        Index("ix_jobs_workspace", _WORKSPACE, "status", "created_at", "id"),
        Index("ix_jobs_owner", "owner_id", _WORKSPACE, "status", "created_at", "id"),
        Index("ix_jobs_active", "updated_at", postgresql_where=ended_ms.is_(None)),
        Index(
            "ix_jobs_owner_active", "owner_id", "updated_at", postgresql_where=ended_ms.is_(None)
        ),
    )


class Job(BaseModel):
    """A job as its owner sees it. Times are those of its events; `percent` is 0 to 100.

    `owner_name`: the name of the owner's account, or else its email address.
    `subject`: what the job is about, such as a URL, a file or a question.
    `lost`: its events stay away, and the orchestrator knows nothing of it any more.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner_id: UUID | None
    owner_name: str | None = None
    workspace: str | None
    kind: str | None
    subject: str | None = None
    status: JobStatus
    percent: float | None
    error: str | None
    result: JsonObject | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    lost: bool = False

    @model_validator(mode="after")
    def _complete_percent(self) -> Self:
        # Not stored: of two terminal events, the one that counts may arrive second.
        self.percent = displayed_percent(self.status, self.percent)
        return self


class JobFilter(BaseModel):
    """Which jobs are asked for."""

    # PostgreSQL rejects NUL, and no workspace name has control characters.
    workspace: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Only jobs of this workspace; those that name none belong to `default`",
    )
    kind: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Only jobs of this kind, such as `crawl`",
    )
    owner: UUID | None = Field(None, description="Only jobs of the user with this id")
    since: AwareDatetime | None = Field(None, description="Only jobs created at this time or later")
    until: AwareDatetime | None = Field(None, description="Only jobs created before this time")


class JobQuery(JobFilter):
    """Which jobs are asked for, and how many of them at once."""

    status: JobStatus | None = Field(None, description="Only jobs in this state")
    limit: PageLimit = 50
    cursor: PageCursor | None = None


class JobPage(Page[Job]):
    """One page of jobs, newest first."""


class JobCounts(BaseModel):
    """The number of jobs by state, each counted up to 10,000."""

    queued: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class JobEventsQuery(BaseModel):
    """How many events of a job are asked for at once."""

    limit: PageLimit = 50
    cursor: PageCursor | None = None


class JobEvent(BaseModel):
    """An event as its producer published it; `id` is its id in the stream."""

    id: str
    event_id: str
    type: str
    occurred_at: datetime
    data: JsonObject
    metadata: JsonObject


class JobEventPage(Page[JobEvent]):
    """One page of the events of a job, oldest first."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The first terminal event of a job in a batch."""

    id: StreamId
    status: JobStatus
    timestamp: int
    error: str | None
    result: Mapping[str, Json] | None


@dataclass(slots=True)
class JobChange:
    """The changes to a job from one batch of events.

    Timestamps are in milliseconds since 1970, UTC. `submitted` is true if the owner and the workspace
    come from a submission of the backend, which takes precedence over events of producers.
    """

    job_id: str
    first_timestamp: int
    last_timestamp: int
    status: JobStatus = JobStatus.QUEUED
    owner: UUID | None = None
    workspace: str | None = None
    kind: str | None = None
    subject: str | None = None
    # Reported progress by event id.
    percents: dict[StreamId, float] = field(default_factory=dict)
    end: JobEnd | None = None
    submitted: bool = False

    @property
    def percent(self) -> float | None:
        """The greatest reported progress. Events after the end of the job do not count."""
        end = self.end
        reported = (p for id_, p in self.percents.items() if end is None or id_ <= end.id)
        return max(reported, default=None)
