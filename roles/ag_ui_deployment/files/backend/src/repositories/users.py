"""Queries on accounts. They load the memberships too, which every permission check needs."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from src.models.user import UserRow

WITH_MEMBERSHIPS = selectinload(UserRow.memberships)
_USERS = select(UserRow).options(WITH_MEMBERSHIPS)


async def by_email(session: AsyncSession, email: str) -> UserRow | None:
    """Read the account with an address, without its memberships."""
    return await session.scalar(select(UserRow).where(UserRow.email == email))


async def by_id(session: AsyncSession, user_id: UUID) -> UserRow | None:
    return await session.scalar(_USERS.where(UserRow.id == user_id))


async def names(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, str]:
    """Read the names of accounts, or their addresses if they have none."""
    if not ids:
        return {}
    name = func.coalesce(UserRow.name, UserRow.email)
    rows = await session.execute(select(UserRow.id, name).where(UserRow.id.in_(ids)))
    return dict(rows.all())


async def for_update(session: AsyncSession, user_id: UUID) -> UserRow | None:
    """Read the current row and lock it until the end of the transaction."""
    statement = _USERS.where(UserRow.id == user_id).with_for_update()
    return await session.scalar(statement)
