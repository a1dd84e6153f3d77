"""Queries on the storage size of conversations and on their retention."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.conversation import MessageRow, RunRow, RunStatus, ThreadRow
from src.repositories.conversations import MESSAGE_SIZE

RETENTION_LOCK = 0x4147_454E_5401
# Estimated bytes per row besides its JSON or log, including index entries.
_ROW_BYTES = 512

_THREAD = tuple_(ThreadRow.owner_id, ThreadRow.id)
_OF_MESSAGES = select(func.coalesce(func.sum(MESSAGE_SIZE + _ROW_BYTES), 0)).where(
    MessageRow.owner_id == ThreadRow.owner_id, MessageRow.thread_id == ThreadRow.id
)
_LOG_SIZE = func.coalesce(func.octet_length(RunRow.events), 0)
_OF_RUNS = select(func.coalesce(func.sum(_LOG_SIZE + _ROW_BYTES), 0)).where(
    RunRow.owner_id == ThreadRow.owner_id, RunRow.thread_id == ThreadRow.id
)
_COUNTED = _OF_MESSAGES.scalar_subquery() + _OF_RUNS.scalar_subquery() + _ROW_BYTES


class StorageTotals(NamedTuple):
    """Totals over all users."""

    threads: int
    runs: int
    bytes: int


async def count_thread(session: AsyncSession, owner_id: UUID, thread_id: str) -> int:
    """Compute and store the size of a conversation in bytes. Returns 0 if it does not exist."""
    counted = await _count(session, ThreadRow.owner_id == owner_id, ThreadRow.id == thread_id)
    return counted[0] if counted else 0


async def of_user(session: AsyncSession, owner_id: UUID) -> int:
    """The size of a user's conversations in bytes. Those never counted are ignored."""
    query = select(func.coalesce(func.sum(ThreadRow.bytes), 0))
    return int(await session.scalar(query.where(ThreadRow.owner_id == owner_id)) or 0)


async def totals(session: AsyncSession) -> StorageTotals:
    of_threads = select(func.count(), func.coalesce(func.sum(ThreadRow.bytes), 0))
    threads, size = (await session.execute(of_threads)).one()
    runs = await session.scalar(select(func.count()).select_from(RunRow))
    return StorageTotals(threads, runs or 0, int(size or 0))


async def count_some(session: AsyncSession, limit: int) -> int:
    """Compute the size of at most `limit` conversations that have none. Returns their number."""
    found = await session.execute(
        select(ThreadRow.owner_id, ThreadRow.id)
        .where(ThreadRow.bytes.is_(None))
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return len(await _count(session, _THREAD.in_([tuple(row) for row in found])))


async def delete_threads(session: AsyncSession, age: timedelta, limit: int) -> int:
    """Delete conversations without a new run for longer than `age`, and without a running one.

    Returns:
        How many were deleted, at most `limit`.
    """
    is_on = exists().where(
        RunRow.owner_id == ThreadRow.owner_id,
        RunRow.thread_id == ThreadRow.id,
        RunRow.status == RunStatus.RUNNING.value,
    )
    old = (
        select(ThreadRow.owner_id, ThreadRow.id)
        .where(ThreadRow.updated_at < func.now() - age, ~is_on)
        .order_by(ThreadRow.updated_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    gone = delete(ThreadRow).where(_THREAD.in_(old)).returning(ThreadRow.id)
    return len((await session.scalars(gone)).all())


async def delete_runs(session: AsyncSession, age: timedelta, limit: int) -> int:
    """Delete runs that ended longer than `age` ago, in at most `limit` conversations.

    The conversations are locked first, like in every transaction that changes runs, which prevents
    deadlocks.

    Returns:
        How many runs were deleted.
    """
    is_old = RunRow.ended_at < func.now() - age
    some = select(RunRow.owner_id, RunRow.thread_id).where(is_old).order_by(RunRow.ended_at)
    found = await session.execute(
        select(ThreadRow.owner_id, ThreadRow.id)
        .where(_THREAD.in_(some.limit(limit)))
        .with_for_update(key_share=True, skip_locked=True)
    )
    threads = [tuple(row) for row in found]
    of_them = tuple_(RunRow.owner_id, RunRow.thread_id).in_(threads)
    gone = delete(RunRow).where(of_them, is_old).returning(RunRow.id)
    deleted = len((await session.scalars(gone)).all())
    await _count(session, _THREAD.in_(threads))
    return deleted


async def _count(session: AsyncSession, *which: ColumnElement[bool]) -> Sequence[Any]:
    """Compute and store the sizes of conversations. Returns the sizes."""
    counted = update(ThreadRow).where(*which).values(bytes=_COUNTED).returning(ThreadRow.bytes)
    options = {"synchronize_session": False}
    return (await session.scalars(counted, execution_options=options)).all()
