"""Queries on second factors."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.second_factor import RecoveryCodeRow, SecondFactorRow


async def of_user(session: AsyncSession, user_id: UUID) -> SecondFactorRow | None:
    return await session.get(SecondFactorRow, user_id)


async def all_for_update(session: AsyncSession) -> list[SecondFactorRow]:
    """Nobody else uses one before the end of the transaction."""
    statement = select(SecondFactorRow).order_by(SecondFactorRow.user_id).with_for_update()
    return list(await session.scalars(statement))


async def replace_codes(session: AsyncSession, user_id: UUID, hashes: Iterable[str]) -> None:
    await session.execute(delete(RecoveryCodeRow).where(RecoveryCodeRow.user_id == user_id))
    session.add_all(RecoveryCodeRow(user_id=user_id, code_hash=one) for one in hashes)


async def use_code(session: AsyncSession, user_id: UUID, code_hash: str) -> bool:
    """Whether it was one that had not been used."""
    used = await session.scalars(
        delete(RecoveryCodeRow)
        .where(RecoveryCodeRow.user_id == user_id, RecoveryCodeRow.code_hash == code_hash)
        .returning(RecoveryCodeRow.code_hash)
    )
    return used.one_or_none() is not None


async def codes_left(session: AsyncSession, user_id: UUID) -> int:
    query = select(func.count()).where(RecoveryCodeRow.user_id == user_id)
    return await session.scalar(query) or 0
