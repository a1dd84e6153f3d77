"""Attempts to authenticate as an account: serialised per account, with counting of failures.

Failures count for the source of the attempt (services/auth/lockout.py).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.login_source import LoginSourceRow
from src.models.user import UserRow
from src.repositories import login_sources
from src.repositories import users as user_rows
from src.services.audit_logger import AuditEvent, AuditLogger
from src.services.auth.devices import Device
from src.services.auth.lockout import (
    UNKNOWN_NETWORKS,
    FailureBudget,
    Lockout,
    is_known,
    lockout_event,
)
from src.services.auth.passwords import verify_password
from src.utils.database import Database
from src.utils.networks import network_of

FindUser = Callable[[AsyncSession], Awaitable[UserRow | None]]
# Maximum of known networks per account.
_MAX_KNOWN_NETWORKS = 50
# An attacker who controls one address of a /24 may control others in it.
_IPV4_PREFIX = 24


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an attempt comes from: an open session, a known browser, or else a network."""

    address: str | None = None
    device: Device | None = None
    session_id: UUID | None = None

    @property
    def network(self) -> str:
        return f"network:{network_of(self.address, _IPV4_PREFIX)}"

    def source(self, user: UserRow | None) -> str:
        """The login source that failures count for on this account."""
        if self.session_id is not None:
            return f"session:{self.session_id}"
        if self.device and user is not None and self.device.is_current(user.password_hash):
            return f"device:{self.device.id}"
        return self.network


async def add_known_network(session: AsyncSession, user_id: UUID, address: str | None) -> None:
    """Record the network of an address as known, after the owner has authenticated from it."""
    await login_sources.remember_login(
        session, user_id, Origin(address).network, max_remembered=_MAX_KNOWN_NETWORKS
    )


@dataclass(slots=True)
class Attempt:
    """An attempt, within a transaction that has locked the account.

    Attributes:
        session: The transaction.
        user: The account, None if it is unknown.
        origin: Where the attempt comes from.
        lockout: The failures of its source.
        locked: Whether the source is locked out. If so the account is not locked in the database.
        password_ok: Whether the password is right.
        new_hash: A new hash of the password if the stored one is outdated.
        event: The audit event to record after the transaction.
        newly_locked: The sources that this failure has locked out.
    """

    session: AsyncSession
    user: UserRow | None
    origin: Origin
    lockout: Lockout
    locked: bool
    password_ok: bool
    new_hash: str | None = None
    event: AuditEvent | None = None
    newly_locked: list[LoginSourceRow] = field(default_factory=list)

    def fail(self) -> None:
        """Count a failure, unless the source is locked out. New lockouts are recorded."""
        if self.user is not None and not self.locked:
            self.newly_locked = self.lockout.count_failure(datetime.now(UTC))
            self.session.add_all(self.lockout.rows)

    async def succeed(self, user: UserRow) -> None:
        """Reset the failures of the source, remember its network, and update an outdated hash."""
        user.password_hash = self.new_hash or user.password_hash
        self.lockout.clear()
        await add_known_network(self.session, user.id, self.origin.address)


class LoginAttempts:
    def __init__(self, database: Database, audit: AuditLogger, settings: Settings) -> None:
        self._database = database
        self._audit = audit
        self._budget = FailureBudget(*settings.login_budget)

    @asynccontextmanager
    async def verify(
        self, find_user: FindUser, password: str | None, origin: Origin
    ) -> AsyncIterator[Attempt]:
        """Begin an attempt. The transaction commits at the end of the block.

        It takes the same time with and without an account.

        Args:
            find_user: Finds the account.
            password: The password. None skips its verification, so that `password_ok` is true.
            origin: Where the attempt comes from.
        """
        attempt = None
        while attempt is None:
            async with self._database.transaction() as session:
                user_before = await find_user(session)
                lockout = await self._lockout(session, user_before, origin, for_update=False)
            locked = user_before is not None and lockout.is_locked(datetime.now(UTC))
            hashed = user_before.password_hash if user_before is not None else None
            # Before the account is locked, since hashing takes long.
            password_ok, new_hash = (
                (True, None) if password is None else await verify_password(password, hashed)
            )
            async with self._database.transaction() as session:
                # Without an account a random id is used, so that it takes the same time. A locked-out
                # source does not lock the account, so that it cannot block the owner.
                locked_id = user_before.id if user_before is not None and not locked else uuid4()
                user = await user_rows.for_update(session, locked_id)
                current = await self._lockout(session, user, origin, for_update=True)
                if user is not None and user.password_hash != hashed:
                    # The password was changed or rehashed meanwhile: verify it again.
                    continue
                if locked:
                    attempt = Attempt(session, user_before, origin, lockout, locked, password_ok)
                else:
                    locked = user is not None and current.is_locked(datetime.now(UTC))
                    attempt = Attempt(session, user, origin, current, locked, password_ok, new_hash)
                yield attempt
        if attempt.event is not None:
            await self._audit.record(attempt.event)
        if attempt.user is not None:
            for row in attempt.newly_locked:
                await self._audit.record(lockout_event(attempt.user, row))

    async def _lockout(
        self, session: AsyncSession, user: UserRow | None, origin: Origin, *, for_update: bool
    ) -> Lockout:
        source = origin.source(user)
        user_id = user.id if user is not None else uuid4()
        rows = await login_sources.of_user(
            session, user_id, (source, UNKNOWN_NETWORKS), for_update=for_update
        )
        own, shared = (
            rows.get(name) or LoginSourceRow(user_id=user_id, source=name, failures=0)
            for name in (source, UNKNOWN_NETWORKS)
        )
        trusted = source != origin.network or is_known(own, datetime.now(UTC))
        return Lockout(own, None if trusted else shared, self._budget)
