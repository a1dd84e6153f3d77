"""Queries on second factors."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.second_factor import RecoveryCodeRow, SecondFactorRow


async def of_user(session: AsyncSession, user_id: UUID) -> SecondFactorRow | None:
    return await session.get(SecondFactorRow, user_id)


async def after(
    session: AsyncSession, user_id: UUID | None, limit: int, *, lock: bool = False
) -> list[SecondFactorRow]:
    """Read second factors in the order of their users, after a user (None: from the first on).

    With `lock` they are locked until the end of the transaction.
    """
    statement = select(SecondFactorRow).order_by(SecondFactorRow.user_id).limit(limit)
    if user_id is not None:
        statement = statement.where(SecondFactorRow.user_id > user_id)
    if lock:
        statement = statement.with_for_update()
    return list(await session.scalars(statement))


async def replace_codes(session: AsyncSession, user_id: UUID, hashes: Iterable[str]) -> None:
    await session.execute(delete(RecoveryCodeRow).where(RecoveryCodeRow.user_id == user_id))
    session.add_all(RecoveryCodeRow(user_id=user_id, code_hash=code_hash) for code_hash in hashes)


async def use_code(session: AsyncSession, user_id: UUID, code_hash: str) -> bool:
    """Delete a recovery code. Returns False if it is unknown or already used."""
    used = await session.scalars(
        delete(RecoveryCodeRow)
        .where(RecoveryCodeRow.user_id == user_id, RecoveryCodeRow.code_hash == code_hash)
        .returning(RecoveryCodeRow.code_hash)
    )
    return used.one_or_none() is not None


async def codes_left(session: AsyncSession, user_id: UUID) -> int:
    query = select(func.count()).where(RecoveryCodeRow.user_id == user_id)
    return await session.scalar(query) or 0
