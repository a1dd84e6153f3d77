"""Queries on accounts. Memberships come with them: whatever decides on a user needs them."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from src.models.user import UserRow

WITH_MEMBERSHIPS = selectinload(UserRow.memberships)
_USERS = select(UserRow).options(WITH_MEMBERSHIPS)


async def by_email(session: AsyncSession, email: str) -> UserRow | None:
    """Without memberships: who looks for an address wants to know whose it is."""
    found: UserRow | None = await session.scalar(select(UserRow).where(UserRow.email == email))
    return found


async def by_id(session: AsyncSession, user_id: UUID) -> UserRow | None:
    found: UserRow | None = await session.scalar(_USERS.where(UserRow.id == user_id))
    return found


async def for_update(session: AsyncSession, user_id: UUID) -> UserRow | None:
    """As it stands now, and nobody else changes it before the end of the transaction."""
    statement = _USERS.where(UserRow.id == user_id).with_for_update()
    found: UserRow | None = await session.scalar(statement)
    return found
