"""Queries on submitted tool calls."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.job import JobRow
from src.models.submission import SubmissionRow, SubmissionState

# First key of the advisory locks; no other lock of the application has it.
_LOCK_SPACE = 7007


async def lock_user(session: AsyncSession, user_id: UUID) -> None:
    """Serialise the submissions of a user until the end of the transaction."""
    number = func.hashtext(str(user_id))
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, number)))


async def by_key(session: AsyncSession, user_id: UUID, key: str) -> SubmissionRow | None:
    query = select(SubmissionRow).where(SubmissionRow.user_id == user_id, SubmissionRow.key == key)
    return await session.scalar(query)


async def count_unanswered(
    session: AsyncSession, user_id: UUID, tools: Collection[str], since: datetime
) -> int:
    """Count a user's calls of some tools that are in flight or have an unknown outcome."""
    query = select(func.count()).where(
        SubmissionRow.user_id == user_id,
        SubmissionRow.tool.in_(tools),
        SubmissionRow.state.in_([SubmissionState.SENT.value, SubmissionState.UNKNOWN.value]),
        SubmissionRow.created_at >= since,
    )
    return await session.scalar(query.select_from(SubmissionRow)) or 0


async def running_jobs(
    session: AsyncSession, user_id: UUID, since: datetime, *, without: Collection[str], limit: int
) -> list[JobRow]:
    """Read a user's jobs that have not ended and had events since a time, least recent first."""
    query = (
        select(JobRow)
        .where(
            JobRow.owner_id == user_id,
            JobRow.ended_ms.is_(None),
            JobRow.updated_at >= since,
            JobRow.id.not_in(without),
        )
        .order_by(JobRow.updated_at)
        .limit(limit)
    )
    return list(await session.scalars(query))


async def remove(session: AsyncSession, submission_id: UUID) -> None:
    await session.execute(delete(SubmissionRow).where(SubmissionRow.id == submission_id))


async def remove_older(session: AsyncSession, before: datetime) -> None:
    """Delete calls from before a time, except those whose job is not announced yet."""
    await session.execute(
        delete(SubmissionRow).where(SubmissionRow.created_at < before, SubmissionRow.announced)
    )


async def take_unannounced(session: AsyncSession, limit: int) -> list[SubmissionRow]:
    """Read and lock calls whose job is not announced yet, skipping those locked by others."""
    query = (
        select(SubmissionRow)
        .where(~SubmissionRow.announced)
        .order_by(SubmissionRow.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(await session.scalars(query))


async def set_announced(session: AsyncSession, ids: Collection[UUID]) -> None:
    await session.execute(
        update(SubmissionRow).where(SubmissionRow.id.in_(ids)).values(announced=True)
    )
