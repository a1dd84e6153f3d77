"""Tokens in emailed links: random, single-use, with an expiry, and stored as hashes."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import AccountTokenRow, Purpose
from src.repositories import account_tokens as token_rows
from src.services.accounts.errors import LinkNotValidError
from src.services.auth.email_addresses import mailbox_key

LIFETIME = {
    Purpose.INVITATION: timedelta(days=7),
    Purpose.REGISTRATION: timedelta(days=1),
    Purpose.RESET: timedelta(hours=1),
}
# Limits of emails to a mailbox, since anybody can request them: unexpired links at a time, and the
# minimum time between two emails.
_MAX_AT_ONCE = 5
_NOT_AGAIN_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class EmailLink:
    token: str
    expires_at: datetime


async def issue(session: AsyncSession, row: AccountTokenRow) -> EmailLink:
    """Create a token and store its row.

    Args:
        session: The transaction.
        row: The row with the purpose and its data. The hash, the mailbox and the expiry are set here.
    """
    await token_rows.delete_expired(session)
    link = EmailLink(secrets.token_urlsafe(32), datetime.now(UTC) + LIFETIME[Purpose(row.purpose)])
    row.mail_budget = mailbox_key(row.email)
    row.token_hash, row.expires_at = _hash(link.token), link.expires_at
    session.add(row)
    return link


async def is_mail_limited(session: AsyncSession, email: str, purpose: Purpose) -> bool:
    """Whether a mailbox must not be sent another email of this purpose now.

    Locks the mailbox for this check until the end of the transaction.
    """
    budget = mailbox_key(email)
    await token_rows.lock(session, budget)
    count, age = await token_rows.sent(session, budget, purpose)
    return count >= _MAX_AT_ONCE or (age is not None and age < _NOT_AGAIN_FOR)


async def look(session: AsyncSession, token: str, purpose: Purpose) -> AccountTokenRow:
    """Find a valid token without using it.

    Raises:
        LinkNotValidError: The token is unknown, used or expired.
    """
    row = await token_rows.by_hash(session, _hash(token), purpose)
    if row is None:
        raise LinkNotValidError(_field(purpose))
    return row


async def use(session: AsyncSession, row: AccountTokenRow) -> None:
    """Delete a token, so that it cannot be used again.

    Raises:
        LinkNotValidError: Another request used it meanwhile, or it has expired.
    """
    if not await token_rows.use(session, row.token_hash):
        raise LinkNotValidError(field_of(row))


def field_of(row: AccountTokenRow) -> str:
    """The input field of the request in which the token is sent."""
    return _field(Purpose(row.purpose))


def _field(purpose: Purpose) -> str:
    return "invitation" if purpose is Purpose.INVITATION else "token"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
