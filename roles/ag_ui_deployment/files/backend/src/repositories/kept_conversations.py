"""Queries on how much conversations hold, and on those that are past the retention."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.conversation import MessageRow, RunRow, RunStatus, ThreadRow
from src.repositories.conversations import MESSAGE_SIZE

RETAIN_LOCK = 0x4147_454E_5401
# What a row takes besides its JSON or its log, with its entries in indexes.
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


class Kept(NamedTuple):
    """What is held of all users together."""

    threads: int
    runs: int
    bytes: int


async def count_thread(session: AsyncSession, owner_id: UUID, thread_id: str) -> int:
    """Store how many bytes a conversation holds, and give it."""
    counted = await _count(session, ThreadRow.owner_id == owner_id, ThreadRow.id == thread_id)
    return counted[0] if counted else 0


async def of_user(session: AsyncSession, owner_id: UUID) -> int:
    """How many bytes a user's conversations hold, as far as they are counted."""
    query = select(func.coalesce(func.sum(ThreadRow.bytes), 0))
    return int(await session.scalar(query.where(ThreadRow.owner_id == owner_id)) or 0)


async def of_all(session: AsyncSession) -> Kept:
    of_threads = select(func.count(), func.coalesce(func.sum(ThreadRow.bytes), 0))
    threads, size = (await session.execute(of_threads)).one()
    runs = await session.scalar(select(func.count()).select_from(RunRow))
    return Kept(threads, runs or 0, int(size or 0))


async def count_some(session: AsyncSession, limit: int) -> int:
    """Count conversations that were never counted; gives how many."""
    found = await session.execute(
        select(ThreadRow.owner_id, ThreadRow.id)
        .where(ThreadRow.bytes.is_(None))
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return len(await _count(session, _THREAD.in_([tuple(row) for row in found])))


async def delete_threads(session: AsyncSession, age: timedelta, limit: int) -> int:
    """Delete conversations in which nothing was begun for so long; gives how many."""
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
    """Delete runs that ended so long ago, of some conversations; gives how many.

    The conversations are locked first, as by all who change runs: else some would wait for one
    another.
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
    counted = update(ThreadRow).where(*which).values(bytes=_COUNTED).returning(ThreadRow.bytes)
    options = {"synchronize_session": False}
    return (await session.scalars(counted, execution_options=options)).all()
