"""Queries on accounts."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.user import UserRow


async def by_email(session: AsyncSession, email: str) -> UserRow | None:
    found: UserRow | None = await session.scalar(select(UserRow).where(UserRow.email == email))
    return found


async def by_id(session: AsyncSession, user_id: UUID) -> UserRow | None:
    return await session.get(UserRow, user_id)


async def all_users(session: AsyncSession) -> list[UserRow]:
    return list(await session.scalars(select(UserRow).order_by(UserRow.email)))
