"""Attempts to prove that an account is one's own: one after the other, and failures count."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.user import UserRow
from src.repositories import users as user_rows
from src.services.audit_logger import AuditEvent, AuditLogger
from src.services.lockout import count_failure, is_locked, lockout_event
from src.services.passwords import verify_password
from src.utils.database import Database

Find = Callable[[AsyncSession], Awaitable[UserRow | None]]


@dataclass(slots=True)
class Attempt:
    """Part of a transaction that has locked the account, if there is one.

    `fits` is whether the password is right; `new_hash` is set where its hash is outdated.
    `event` is what the audit log is told when the transaction is over.
    """

    session: AsyncSession
    user: UserRow | None
    fits: bool
    new_hash: str | None = None
    event: AuditEvent | None = None
    locks: bool = False

    @property
    def locked(self) -> bool:
        return self.user is not None and is_locked(self.user, datetime.now(UTC))

    def fail(self) -> None:
        """Count a failure. The one that locks the account is recorded as such."""
        if self.user is not None:
            self.locks = count_failure(self.user, datetime.now(UTC))


class Attempts:
    def __init__(self, database: Database, audit: AuditLogger) -> None:
        self._database = database
        self._audit = audit

    @asynccontextmanager
    async def on(self, find: Find, password: str | None) -> AsyncIterator[Attempt]:
        """An attempt on the account that `find` finds.

        Without an account it takes as long as with one; without a password that counts as right.
        """
        attempt = None
        while attempt is None:
            async with self._database.transaction() as session:
                found = await find(session)
            hashed = found.password_hash if found is not None else None
            # Before the account is locked, since it takes long.
            fits, new_hash = (
                (True, None) if password is None else await verify_password(password, hashed)
            )
            async with self._database.transaction() as session:
                # Also where there is none, so that it takes as long.
                user = await user_rows.for_update(session, found.id if found else uuid4())
                if user is not None and user.password_hash != hashed:
                    # Set or hashed anew meanwhile: judged again.
                    continue
                attempt = Attempt(session, user, fits, new_hash)
                yield attempt
        if attempt.event is not None:
            await self._audit.record(attempt.event)
        if attempt.locks and attempt.user is not None:
            await self._audit.record(lockout_event(attempt.user))
