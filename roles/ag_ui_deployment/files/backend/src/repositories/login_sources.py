"""Queries on login sources: failed logins, lockouts and known networks per account."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.login_source import LoginSourceRow
from src.models.user import UserRow

# The latest end of a lockout of any source, as a column of a query on accounts.
LOCKED_UNTIL = (
    select(func.max(LoginSourceRow.locked_until))
    .where(LoginSourceRow.user_id == UserRow.id, LoginSourceRow.locked_until > func.now())
    .correlate(UserRow)
    .scalar_subquery()
)


async def of_user(
    session: AsyncSession, user_id: UUID, sources: Iterable[str], *, for_update: bool
) -> dict[str, LoginSourceRow]:
    """Read some sources of an account by name, and lock them if `for_update`."""
    query = select(LoginSourceRow).where(
        LoginSourceRow.user_id == user_id, LoginSourceRow.source.in_(list(sources))
    )
    rows = await session.scalars(query.with_for_update() if for_update else query)
    return {row.source: row for row in rows}


async def locked_until(session: AsyncSession, user_id: UUID) -> datetime | None:
    """The latest end of a lockout of any source of an account, None if none is locked out."""
    return await session.scalar(select(LOCKED_UNTIL).where(UserRow.id == user_id))


async def remember_login(
    session: AsyncSession, user_id: UUID, source: str, *, max_remembered: int
) -> None:
    """Record a login from a network. Only the latest `max_remembered` networks are kept."""
    new = insert(LoginSourceRow).values(user_id=user_id, source=source, logged_in_at=func.now())
    await session.execute(
        new.on_conflict_do_update(
            index_elements=["user_id", "source"], set_={"logged_in_at": new.excluded.logged_in_at}
        )
    )
    surplus = (
        select(LoginSourceRow.source)
        .where(LoginSourceRow.user_id == user_id, LoginSourceRow.logged_in_at.is_not(None))
        .order_by(LoginSourceRow.logged_in_at.desc())
        .offset(max_remembered)
    )
    await session.execute(
        delete(LoginSourceRow)
        .where(LoginSourceRow.user_id == user_id, LoginSourceRow.source.in_(surplus))
        .execution_options(synchronize_session=False)
    )


async def failures(session: AsyncSession, user_id: UUID, *, without: str) -> int:
    """Sum the failed logins of all sources of an account but one."""
    query = select(func.sum(LoginSourceRow.failures)).where(
        LoginSourceRow.user_id == user_id, LoginSourceRow.source != without
    )
    return int(await session.scalar(query) or 0)


async def clear_failures(session: AsyncSession, user_id: UUID) -> None:
    """Reset the failures and lockouts of all sources of an account. Known networks stay."""
    await session.execute(
        update(LoginSourceRow)
        .where(LoginSourceRow.user_id == user_id)
        .values(failures=0, locked_until=None)
        .execution_options(synchronize_session=False)
    )


async def delete_of_user(session: AsyncSession, user_id: UUID) -> None:
    """Delete all sources of an account: failures, lockouts and known networks."""
    await session.execute(delete(LoginSourceRow).where(LoginSourceRow.user_id == user_id))


async def delete_old(
    session: AsyncSession, *, logins_for: timedelta, failures_for: timedelta
) -> None:
    """Delete sources whose last login and last failure are both older than these ages."""
    await session.execute(
        delete(LoginSourceRow).where(
            func.coalesce(LoginSourceRow.logged_in_at < func.now() - logins_for, True),
            func.coalesce(LoginSourceRow.failed_at < func.now() - failures_for, True),
        )
    )
