"""The tokens in links: random, good once and for a time, stored as hashes."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import AccountTokenRow, Purpose
from src.repositories import account_tokens as token_rows
from src.services.accounts.errors import LinkNotValidError
from src.services.auth.email_addresses import mail_budget_of

LIFETIME = {
    Purpose.INVITATION: timedelta(days=7),
    Purpose.REGISTRATION: timedelta(days=1),
    Purpose.RESET: timedelta(hours=1),
}
# What a mailbox is sent that somebody else types in again and again.
_MAX_AT_ONCE = 5
_NOT_AGAIN_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class EmailLink:
    token: str
    expires_at: datetime


async def issue(session: AsyncSession, row: AccountTokenRow) -> EmailLink:
    """Keep what the link is for, all but its token and its times, which are added."""
    await token_rows.forget_expired(session)
    link = EmailLink(secrets.token_urlsafe(32), datetime.now(UTC) + LIFETIME[Purpose(row.purpose)])
    row.mail_budget = mail_budget_of(row.email)
    row.token_hash, row.expires_at = _hash(link.token), link.expires_at
    session.add(row)
    return link


async def sent_enough(session: AsyncSession, email: str, purpose: Purpose) -> bool:
    """Whether the mailbox has enough mails of a kind, as links that are still good.

    Nobody else learns this of the mailbox before the end of the transaction.
    """
    budget = mail_budget_of(email)
    await token_rows.lock(session, budget)
    count, age = await token_rows.sent(session, budget, purpose)
    return count >= _MAX_AT_ONCE or (age is not None and age < _NOT_AGAIN_FOR)


async def look(session: AsyncSession, token: str, purpose: Purpose) -> AccountTokenRow:
    """Raises LinkNotValidError."""
    row = await token_rows.by_hash(session, _hash(token), purpose)
    if row is None:
        raise LinkNotValidError(_field(purpose))
    return row


async def use(session: AsyncSession, row: AccountTokenRow) -> None:
    """Raises LinkNotValidError if another request has used it meanwhile."""
    if not await token_rows.use(session, row.token_hash):
        raise LinkNotValidError(field_of(row))


def field_of(row: AccountTokenRow) -> str:
    """In which field the token of a link is sent."""
    return _field(Purpose(row.purpose))


def _field(purpose: Purpose) -> str:
    return "invitation" if purpose is Purpose.INVITATION else "token"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
