"""Queries on the last applied settings, which are kept to detect changes."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.audit import AppliedSettingRow

# Key of the advisory lock. All instances must use the same.
_LOCK = 0x4155_4449_5404


async def lock(session: AsyncSession) -> None:
    """Serialise the comparison of settings over all instances until the end of the transaction."""
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def by_name(session: AsyncSession) -> dict[str, AppliedSettingRow]:
    return {row.name: row for row in await session.scalars(select(AppliedSettingRow))}
