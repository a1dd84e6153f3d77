"""Queries on the tokens in emailed links."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import AccountTokenRow, LinkPurpose
from src.models.user import UserRow
from src.repositories.accounts import ACTIVE_ADMINS

# First key of the advisory locks; no other lock of the application has it.
_LOCK = 7_305_002
_IS_VALID = and_(
    AccountTokenRow.expires_at > func.now(),
    or_(AccountTokenRow.made_by.is_(None), AccountTokenRow.made_by.in_(ACTIVE_ADMINS)),
)


async def lock(session: AsyncSession, mailbox: str) -> None:
    """Serialise the checks whether a mailbox may get an email, until the end of the transaction."""
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(mailbox))))


async def by_hash(
    session: AsyncSession, token_hash: str, purpose: LinkPurpose
) -> AccountTokenRow | None:
    """Read a token if it is valid: not expired, and its creator is still an active admin."""
    query = select(AccountTokenRow).where(
        AccountTokenRow.token_hash == token_hash,
        AccountTokenRow.purpose == purpose.value,
        _IS_VALID,
    )
    return await session.scalar(query)


async def use(session: AsyncSession, token_hash: str) -> bool:
    """Delete a valid token. Returns False if it is invalid or was already used."""
    used = await session.scalars(
        delete(AccountTokenRow)
        .where(AccountTokenRow.token_hash == token_hash, _IS_VALID)
        .returning(AccountTokenRow.token_hash)
    )
    return used.one_or_none() is not None


async def invitations(session: AsyncSession) -> list[tuple[AccountTokenRow, str | None]]:
    """Read the valid invitations by address, each with the address of its creator."""
    rows = await session.execute(
        select(AccountTokenRow, UserRow.email)
        .outerjoin(UserRow, UserRow.id == AccountTokenRow.made_by)
        .where(AccountTokenRow.purpose == LinkPurpose.INVITATION.value, _IS_VALID)
        .order_by(AccountTokenRow.email)
    )
    return [(row, creator) for row, creator in rows]


async def withdraw(session: AsyncSession, invitation_id: UUID) -> str | None:
    """Delete an invitation. Returns its email address, None if there is no such invitation."""
    withdrawn = await session.scalars(
        delete(AccountTokenRow)
        .where(AccountTokenRow.id == invitation_id)
        .where(AccountTokenRow.purpose == LinkPurpose.INVITATION.value)
        .returning(AccountTokenRow.email)
    )
    return withdrawn.one_or_none()


async def delete_expired(session: AsyncSession) -> None:
    await session.execute(delete(AccountTokenRow).where(AccountTokenRow.expires_at <= func.now()))


async def delete_of_email(session: AsyncSession, email: str, purpose: LinkPurpose) -> None:
    await session.execute(
        delete(AccountTokenRow).where(
            AccountTokenRow.email == email, AccountTokenRow.purpose == purpose.value
        )
    )


async def sent(
    session: AsyncSession, mailbox: str, purpose: LinkPurpose
) -> tuple[int, timedelta | None]:
    """Count the unexpired tokens that were sent to a mailbox.

    Args:
        session: The transaction.
        mailbox: The key of the mailbox. Rows of the previous release have none and count by address.
        purpose: The purpose of the tokens.

    Returns:
        Their number, and the age of the newest or None.
    """
    rows = await session.execute(
        select(func.count(), func.max(AccountTokenRow.created_at), func.now()).where(
            or_(
                AccountTokenRow.mail_budget == mailbox,
                AccountTokenRow.mail_budget.is_(None) & (AccountTokenRow.email == mailbox),
            ),
            AccountTokenRow.purpose == purpose.value,
            AccountTokenRow.expires_at > func.now(),
        )
    )
    count, newest, now = rows.one()
    newest_at: datetime | None = newest
    return count, None if newest_at is None else now - newest_at
