"""Queries on jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import case, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.event import SUBMISSION, EventRow
from src.models.job import JobChange, JobRow, JobStatus
from src.models.submission import SubmissionRow, SubmissionState
from src.repositories.bulk import arrays, insert_arrays
from src.repositories.events import moment

_JOB = (
    "id",
    "owner_id",
    "workspace",
    "kind",
    "subject",
    "status",
    "percent",
    "error",
    "result",
    "created_at",
    "updated_at",
    "completed_at",
    "ended_ms",
    "ended_seq",
)


async def merge(session: AsyncSession, changes: Sequence[JobChange]) -> None:
    """Update jobs from a batch of their events.

    Batches of one job reach several processes, in any order and more than once. Each column therefore
    merges by a rule that does not depend on order: the earliest, the greatest, the first end. Owner,
    workspace, kind and subject keep the first stored value, since the events of a job agree on them.
    If they do not, the owner and workspace of a submission of the backend take precedence.
    """
    if changes:
        rows = [_row(change) for change in changes]
        await session.execute(_MERGE, arrays(_JOB, rows))
    for change in changes:
        owner_and_workspace = {"owner_id": change.owner, "workspace": change.workspace}
        values = {name: value for name, value in owner_and_workspace.items() if value is not None}
        if change.submitted and values:
            await session.execute(update(JobRow).where(JobRow.id == change.job_id).values(values))


async def by_id(session: AsyncSession, job_id: str) -> JobRow | None:
    return await session.get(JobRow, job_id)


async def belongs_to_other_user(session: AsyncSession, job_id: str, user_id: UUID) -> bool:
    """Whether a job was accepted for another user before, since a tool may return an existing job.

    Only submissions of the backend count, not the owner that events of producers name.
    """
    announced = select(EventRow).where(EventRow.job_id == job_id, EventRow.type == SUBMISSION)
    accepted = select(SubmissionRow).where(
        SubmissionRow.job_id == job_id, SubmissionRow.state == SubmissionState.DONE.value
    )
    query = select(JobRow.id).where(
        JobRow.id == job_id,
        JobRow.owner_id != user_id,
        or_(announced.exists(), accepted.exists()),
    )
    return await session.scalar(query) is not None


async def active_ids(session: AsyncSession, since: datetime, limit: int) -> list[str]:
    """Ids of jobs that have not ended and had events since a time, most recent first."""
    query = (
        select(JobRow.id)
        .where(JobRow.ended_ms.is_(None), JobRow.updated_at >= since)
        .order_by(JobRow.updated_at.desc())
        .limit(limit)
    )
    return list(await session.scalars(query))


def _row(change: JobChange) -> tuple[Any, ...]:
    end = change.end
    return (
        change.job_id,
        change.owner,
        change.workspace,
        change.kind,
        change.subject,
        (end.status if end else change.status).value,
        change.percent,
        end.error if end else None,
        orjson.dumps(end.result).decode() if end and end.result is not None else None,
        moment(change.first_timestamp),
        moment(change.last_timestamp),
        moment(end.timestamp) if end else None,
        end.id.ms if end else None,
        end.id.seq if end else None,
    )


def _merge_statement() -> Any:
    statement = insert_arrays(JobRow, _JOB)
    new = statement.excluded
    ends_first = new.ended_ms.is_not(None) & or_(
        JobRow.ended_ms.is_(None),
        tuple_(new.ended_ms, new.ended_seq) < tuple_(JobRow.ended_ms, JobRow.ended_seq),
    )
    running = JobStatus.RUNNING.value

    def from_first_end(name: str) -> Any:
        return case((ends_first, new[name]), else_=getattr(JobRow, name))

    return statement.on_conflict_do_update(
        index_elements=[JobRow.id],
        set_={
            "owner_id": func.coalesce(JobRow.owner_id, new.owner_id),
            "workspace": func.coalesce(JobRow.workspace, new.workspace),
            "kind": func.coalesce(JobRow.kind, new.kind),
            "subject": func.coalesce(JobRow.subject, new.subject),
            "status": case(
                (ends_first, new.status),
                (JobRow.ended_ms.is_not(None), JobRow.status),
                (new.status == running, running),
                else_=JobRow.status,
            ),
            "percent": func.greatest(JobRow.percent, new.percent),
            "created_at": func.least(JobRow.created_at, new.created_at),
            "updated_at": func.greatest(JobRow.updated_at, new.updated_at),
            **{
                name: from_first_end(name)
                for name in ("error", "result", "completed_at", "ended_ms", "ended_seq")
            },
        },
    )


_MERGE = _merge_statement()
