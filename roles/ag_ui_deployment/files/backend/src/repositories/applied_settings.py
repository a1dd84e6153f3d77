"""Queries on the settings that were last applied."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.applied_setting import AppliedSettingRow

# Any number will do, as long as all instances use the same.
_LOCK = 0x4155_4449_5404


async def lock(session: AsyncSession) -> None:
    """Wait until no other instance compares, and keep others from it for this transaction."""
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def by_name(session: AsyncSession) -> dict[str, AppliedSettingRow]:
    return {row.name: row for row in await session.scalars(select(AppliedSettingRow))}
