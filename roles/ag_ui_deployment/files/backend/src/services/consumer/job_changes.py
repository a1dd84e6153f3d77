"""Summarizes the changes of jobs in a batch of events. Pure; order does not matter."""

from collections.abc import Iterable

from src.models.event import SUBMISSION, ShieldEvent
from src.models.job import JobChange, JobEnd, JobStatus
from src.services.shield.event_types import (
    END_STATUS,
    LIFECYCLE_STATUS,
    belongs_to_run,
    error_message,
    kind_of,
    percent_of,
    subject_of,
)


def summarize(events: Iterable[ShieldEvent]) -> list[JobChange]:
    """Returns one change per job of the batch."""
    changes: dict[str, JobChange] = {}
    for event in events:
        if event.job_id is None or not belongs_to_run(event):
            continue
        change = changes.get(event.job_id)
        if change is None:
            change = JobChange(event.job_id, event.timestamp, event.timestamp)
            changes[event.job_id] = change
        _add(change, event)
    return list(changes.values())


def _add(change: JobChange, event: ShieldEvent) -> None:
    change.first_timestamp = min(change.first_timestamp, event.timestamp)
    change.last_timestamp = max(change.last_timestamp, event.timestamp)
    _add_ownership(change, event)
    change.kind = change.kind or _storable(kind_of(event.type, event.data))
    change.subject = change.subject or subject_of(event.type, event.data)
    percent = percent_of(event.type, event.data)
    if percent is not None:
        change.percents[event.id] = percent
    if event.type in END_STATUS:
        _add_end(change, event)
    elif LIFECYCLE_STATUS.get(event.type) is not JobStatus.QUEUED:
        change.status = JobStatus.RUNNING


def _add_ownership(change: JobChange, event: ShieldEvent) -> None:
    owner, workspace = event.user_id, _storable(event.workspace)
    if event.type == SUBMISSION:
        change.submitted = True
        change.owner, change.workspace = owner or change.owner, workspace or change.workspace
    else:
        change.owner, change.workspace = change.owner or owner, change.workspace or workspace


def _add_end(change: JobChange, event: ShieldEvent) -> None:
    if change.end is not None and change.end.id < event.id:
        return
    status = END_STATUS[event.type]
    change.end = JobEnd(
        id=event.id,
        status=status,
        timestamp=event.timestamp,
        error=_storable(error_message(event.data)) if status is JobStatus.FAILED else None,
        result=event.data if status is JobStatus.COMPLETED else None,
    )


def _storable(text: str | None) -> str | None:
    """Replaces NUL, which JSON allows and a text column of PostgreSQL does not."""
    return text and text.replace("\0", "\ufffd")
