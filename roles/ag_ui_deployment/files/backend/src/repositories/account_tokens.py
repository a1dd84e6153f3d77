"""Queries on the links that were sent to the owners of accounts."""

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import AccountTokenRow, Purpose


async def by_hash(
    session: AsyncSession, token_hash: str, purpose: Purpose
) -> AccountTokenRow | None:
    """One that can be used now."""
    query = select(AccountTokenRow).where(
        AccountTokenRow.token_hash == token_hash,
        AccountTokenRow.purpose == purpose.value,
        AccountTokenRow.expires_at > func.now(),
    )
    found: AccountTokenRow | None = await session.scalar(query)
    return found


async def use(session: AsyncSession, token_hash: str) -> bool:
    """Delete it; False if somebody else has been quicker."""
    used = await session.scalars(
        delete(AccountTokenRow)
        .where(AccountTokenRow.token_hash == token_hash)
        .returning(AccountTokenRow.token_hash)
    )
    return used.one_or_none() is not None


async def forget_expired(session: AsyncSession) -> None:
    await session.execute(delete(AccountTokenRow).where(AccountTokenRow.expires_at <= func.now()))


async def forget(session: AsyncSession, email: str, purpose: Purpose) -> None:
    await session.execute(
        delete(AccountTokenRow).where(
            AccountTokenRow.email == email, AccountTokenRow.purpose == purpose.value
        )
    )


async def sent(session: AsyncSession, email: str, purpose: Purpose) -> tuple[int, timedelta | None]:
    """How many can be used, and how old the newest is."""
    rows = await session.execute(
        select(func.count(), func.max(AccountTokenRow.created_at), func.now()).where(
            AccountTokenRow.email == email,
            AccountTokenRow.purpose == purpose.value,
            AccountTokenRow.expires_at > func.now(),
        )
    )
    count, newest, now = rows.one()
    newest_at: datetime | None = newest
    return count, None if newest_at is None else now - newest_at
