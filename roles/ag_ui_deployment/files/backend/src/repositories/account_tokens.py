"""Queries on the links that were sent to the owners of accounts."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import AccountTokenRow, Purpose
from src.models.user import UserRow
from src.repositories.accounts import ACTIVE_ADMINS

# Any number that no other lock of ours has.
_LOCK = 7_305_002
_GOOD = and_(
    AccountTokenRow.expires_at > func.now(),
    or_(AccountTokenRow.made_by.is_(None), AccountTokenRow.made_by.in_(ACTIVE_ADMINS)),
)


async def lock(session: AsyncSession, budget: str) -> None:
    """Until the end of the transaction nobody else looks whether the mailbox gets a mail."""
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(budget))))


async def by_hash(
    session: AsyncSession, token_hash: str, purpose: Purpose
) -> AccountTokenRow | None:
    """One that can be used now."""
    query = select(AccountTokenRow).where(
        AccountTokenRow.token_hash == token_hash,
        AccountTokenRow.purpose == purpose.value,
        _GOOD,
    )
    found: AccountTokenRow | None = await session.scalar(query)
    return found


async def use(session: AsyncSession, token_hash: str) -> bool:
    """Delete it; False if it is good no more, or somebody else has been quicker."""
    used = await session.scalars(
        delete(AccountTokenRow)
        .where(AccountTokenRow.token_hash == token_hash, _GOOD)
        .returning(AccountTokenRow.token_hash)
    )
    return used.one_or_none() is not None


async def invitations(session: AsyncSession) -> list[tuple[AccountTokenRow, str | None]]:
    """Those that can be accepted, by address, with the address of who made each."""
    rows = await session.execute(
        select(AccountTokenRow, UserRow.email)
        .outerjoin(UserRow, UserRow.id == AccountTokenRow.made_by)
        .where(AccountTokenRow.purpose == Purpose.INVITATION.value, _GOOD)
        .order_by(AccountTokenRow.email)
    )
    return [(row, maker) for row, maker in rows]


async def withdraw(session: AsyncSession, invitation_id: UUID) -> str | None:
    """Delete an invitation; gives its address, None if there is no such one."""
    withdrawn = await session.scalars(
        delete(AccountTokenRow)
        .where(AccountTokenRow.id == invitation_id)
        .where(AccountTokenRow.purpose == Purpose.INVITATION.value)
        .returning(AccountTokenRow.email)
    )
    return withdrawn.one_or_none()


async def forget_expired(session: AsyncSession) -> None:
    await session.execute(delete(AccountTokenRow).where(AccountTokenRow.expires_at <= func.now()))


async def forget(session: AsyncSession, email: str, purpose: Purpose) -> None:
    await session.execute(
        delete(AccountTokenRow).where(
            AccountTokenRow.email == email, AccountTokenRow.purpose == purpose.value
        )
    )


async def sent(
    session: AsyncSession, budget: str, purpose: Purpose
) -> tuple[int, timedelta | None]:
    """How many can be used, and how old the newest is."""
    rows = await session.execute(
        select(func.count(), func.max(AccountTokenRow.created_at), func.now()).where(
            or_(
                AccountTokenRow.mail_budget == budget,
                AccountTokenRow.mail_budget.is_(None) & (AccountTokenRow.email == budget),
            ),
            AccountTokenRow.purpose == purpose.value,
            AccountTokenRow.expires_at > func.now(),
        )
    )
    count, newest, now = rows.one()
    newest_at: datetime | None = newest
    return count, None if newest_at is None else now - newest_at
