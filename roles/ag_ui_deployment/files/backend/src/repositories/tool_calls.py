"""Queries on past calls of tools."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.tool_call import ToolCallRow

# Key of the advisory lock of the retention.
RETENTION_LOCK = 0x544F_4F4C_5301
_KEY = (ToolCallRow.started_at, ToolCallRow.id)


async def page(
    session: AsyncSession,
    user_id: UUID | None,
    job_id: str | None,
    below: tuple[datetime, UUID] | None,
    limit: int,
) -> list[ToolCallRow]:
    """Read calls, the latest first.

    Args:
        session: The transaction.
        user_id: Whose calls; None for those of all users.
        job_id: Only calls of this job; None for all calls.
        below: The time and id of the last call of the previous page.
        limit: Maximum number of calls.
    """
    query = select(ToolCallRow).order_by(*(part.desc() for part in _KEY)).limit(limit)
    if user_id is not None:
        query = query.where(ToolCallRow.user_id == user_id)
    if job_id is not None:
        query = query.where(ToolCallRow.job_id == job_id)
    if below is not None:
        query = query.where(tuple_(*_KEY) < tuple_(*below))
    return list(await session.scalars(query))


async def delete_older(session: AsyncSession, age: timedelta, limit: int) -> int:
    """Delete some calls that are older than `age`. Returns how many."""
    old = (
        select(ToolCallRow.id)
        .where(ToolCallRow.started_at < func.now() - age)
        .order_by(ToolCallRow.started_at)
        .limit(limit)
    )
    deleted = await session.scalars(
        delete(ToolCallRow).where(ToolCallRow.id.in_(old)).returning(ToolCallRow.id)
    )
    return len(deleted.all())
