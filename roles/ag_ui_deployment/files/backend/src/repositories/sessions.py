"""Queries on sessions and access changes."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.session import AccessChangeReason, AccessChangeRow, SessionRow
from src.models.user import UserRow
from src.repositories.users import WITH_MEMBERSHIPS


async def with_user(session: AsyncSession, session_id: UUID) -> tuple[SessionRow, UserRow] | None:
    """Read a session with its user and the user's memberships."""
    rows = await session.execute(
        select(SessionRow, UserRow)
        .join(UserRow, UserRow.id == SessionRow.user_id)
        .where(SessionRow.id == session_id)
        .options(WITH_MEMBERSHIPS)
    )
    found = rows.one_or_none()
    return None if found is None else (found[0], found[1])


async def by_series(session: AsyncSession, series_hash: str) -> SessionRow | None:
    """Read the session of a refresh token and lock it until the end of the transaction."""
    statement = select(SessionRow).where(SessionRow.series_hash == series_hash).with_for_update()
    return await session.scalar(statement)


async def of_user(session: AsyncSession, user_id: UUID) -> list[SessionRow]:
    """Read the sessions of a user that were not ended, newest first. Some may have expired."""
    return list(
        await session.scalars(
            select(SessionRow)
            .where(SessionRow.user_id == user_id, SessionRow.ended_at.is_(None))
            .order_by(SessionRow.created_at.desc(), SessionRow.id)
        )
    )


async def end(  # noqa: PLR0913 - keywords, mostly optional
    session: AsyncSession,
    user_id: UUID,
    reason: AccessChangeReason,
    at: datetime,
    *,
    only: UUID | None = None,
    spared: UUID | None = None,
) -> None:
    """End sessions of a user.

    Args:
        session: The transaction.
        user_id: The user.
        reason: The reason to store.
        at: The time to store.
        only: End only this session.
        spared: End all but this session.
    """
    statement = (
        update(SessionRow)
        .where(SessionRow.user_id == user_id, SessionRow.ended_at.is_(None))
        .values(ended_at=at, ended_why=reason.value)
        .execution_options(synchronize_session=False)
    )
    if only is not None:
        statement = statement.where(SessionRow.id == only)
    if spared is not None:
        statement = statement.where(SessionRow.id != spared)
    await session.execute(statement)


async def touch(session: AsyncSession, ids: Iterable[UUID], at: datetime) -> None:
    """Set the time of last use of sessions, unless a later one is stored."""
    await session.execute(
        update(SessionRow)
        .where(SessionRow.id.in_(list(ids)), SessionRow.ended_at.is_(None))
        .where(SessionRow.last_used_at < at)
        .values(last_used_at=at)
        .execution_options(synchronize_session=False)
    )


async def changes(session: AsyncSession, since: datetime) -> list[AccessChangeRow]:
    """Read the access changes since a time, inclusive."""
    return list(
        await session.scalars(
            select(AccessChangeRow)
            .where(AccessChangeRow.changed_at >= since)
            .order_by(AccessChangeRow.id)
        )
    )


async def now(session: AsyncSession) -> datetime:
    """Read the clock of the database, which also sets the times of access changes."""
    moment: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return moment


async def delete_old(
    session: AsyncSession, *, changes_for: timedelta, sessions_for: timedelta
) -> None:
    """Delete access changes older than `changes_for`, and sessions expired for `sessions_for`."""
    at = func.now()
    await session.execute(
        delete(AccessChangeRow).where(AccessChangeRow.changed_at < at - changes_for)
    )
    await session.execute(delete(SessionRow).where(SessionRow.expires_at < at - sessions_for))
