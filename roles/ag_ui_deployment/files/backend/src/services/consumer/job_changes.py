"""What a batch of events says about the jobs that it touches. Pure; order does not matter."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from src.models.event import ShieldEvent, StreamId
from src.models.job import JobStatus
from src.services.event_service import belongs_to_run
from src.services.shield.event_types import (
    END_STATUS,
    LIFECYCLE_STATUS,
    SUBMISSION,
    error_message,
    kind_of,
    percent_of,
)


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The first terminal event of a job in a batch."""

    id: StreamId
    status: JobStatus
    timestamp: int
    error: str | None
    result: Mapping[str, Any] | None


@dataclass(slots=True)
class JobChange:
    """What one batch says about one job. Timestamps are in milliseconds.

    `submitted`: owner and workspace are those for whom and where the backend asked for the job.
    """

    job_id: str
    first_timestamp: int
    last_timestamp: int
    status: JobStatus = JobStatus.QUEUED
    owner: UUID | None = None
    workspace: str | None = None
    kind: str | None = None
    # What was reported, by the id of the event.
    percents: dict[StreamId, float] = field(default_factory=dict)
    end: JobEnd | None = None
    submitted: bool = False

    @property
    def percent(self) -> float | None:
        """The greatest that was reported; after its end a job makes no progress."""
        end = self.end
        reported = (p for id_, p in self.percents.items() if end is None or id_ <= end.id)
        return max(reported, default=None)

    def add(self, event: ShieldEvent) -> None:
        self.first_timestamp = min(self.first_timestamp, event.timestamp)
        self.last_timestamp = max(self.last_timestamp, event.timestamp)
        self._add_place(event)
        self.kind = self.kind or _storable(kind_of(event.type, event.data))
        percent = percent_of(event.type, event.data)
        if percent is not None:
            self.percents[event.id] = percent
        if event.type in END_STATUS:
            self._add_end(event)
        elif LIFECYCLE_STATUS.get(event.type) is not JobStatus.QUEUED:
            self.status = JobStatus.RUNNING

    def _add_place(self, event: ShieldEvent) -> None:
        owner, workspace = event.user_id, _storable(event.workspace)
        if event.type == SUBMISSION:
            self.submitted = True
            self.owner, self.workspace = owner or self.owner, workspace or self.workspace
        else:
            self.owner, self.workspace = self.owner or owner, self.workspace or workspace

    def _add_end(self, event: ShieldEvent) -> None:
        if self.end is not None and self.end.id < event.id:
            return
        status = END_STATUS[event.type]
        self.end = JobEnd(
            id=event.id,
            status=status,
            timestamp=event.timestamp,
            error=_storable(error_message(event.data)) if status is JobStatus.FAILED else None,
            result=event.data if status is JobStatus.COMPLETED else None,
        )


def _storable(text: str | None) -> str | None:
    """The text without NUL, which JSON allows and a text column of PostgreSQL does not."""
    return text and text.replace("\0", "\ufffd")


def summarise(events: Iterable[ShieldEvent]) -> list[JobChange]:
    changes: dict[str, JobChange] = {}
    for event in events:
        if event.job_id is None or not belongs_to_run(event):
            continue
        change = changes.get(event.job_id)
        if change is None:
            change = JobChange(event.job_id, event.timestamp, event.timestamp)
            changes[event.job_id] = change
        change.add(event)
    return list(changes.values())
