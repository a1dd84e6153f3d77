"""Tokens in emailed links: random, single-use, with an expiry, and stored as hashes."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import AccountTokenRow, LinkPurpose
from src.repositories import account_tokens as token_rows
from src.services.accounts.errors import LinkNotValidError
from src.services.auth.email_addresses import mailbox_key

LIFETIME = {
    LinkPurpose.INVITATION: timedelta(days=7),
    LinkPurpose.REGISTRATION: timedelta(days=1),
    LinkPurpose.RESET: timedelta(hours=1),
}
# Limits of emails to a mailbox, since anybody can request them: unexpired links at a time, and the
# minimum time between two emails.
_MAX_UNEXPIRED = 5
_MIN_INTERVAL = timedelta(minutes=1)


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
    link = EmailLink(
        secrets.token_urlsafe(32), datetime.now(UTC) + LIFETIME[LinkPurpose(row.purpose)]
    )
    row.mail_budget = mailbox_key(row.email)
    row.token_hash, row.expires_at = _hash(link.token), link.expires_at
    session.add(row)
    return link


async def is_mail_limited(session: AsyncSession, email: str, purpose: LinkPurpose) -> bool:
    """Whether a mailbox must not be sent another email of this purpose now.

    Locks the mailbox for this check until the end of the transaction.
    """
    mailbox = mailbox_key(email)
    await token_rows.lock(session, mailbox)
    count, age = await token_rows.sent(session, mailbox, purpose)
    return count >= _MAX_UNEXPIRED or (age is not None and age < _MIN_INTERVAL)


async def find(session: AsyncSession, token: str, purpose: LinkPurpose) -> AccountTokenRow:
    """Find a valid token without using it.

    Raises:
        LinkNotValidError: The token is unknown, used or expired.
    """
    row = await token_rows.by_hash(session, _hash(token), purpose)
    if row is None:
        raise LinkNotValidError(_field(purpose))
    return row


async def consume(session: AsyncSession, row: AccountTokenRow) -> None:
    """Delete a token, so that it cannot be used again.

    Raises:
        LinkNotValidError: Another request used it meanwhile, or it has expired.
    """
    if not await token_rows.use(session, row.token_hash):
        raise LinkNotValidError(input_field(row))


def input_field(row: AccountTokenRow) -> str:
    """The input field of the request in which the token is sent."""
    return _field(LinkPurpose(row.purpose))


def _field(purpose: LinkPurpose) -> str:
    return "invitation" if purpose is LinkPurpose.INVITATION else "token"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
