"""Second factors: set up and removed by their owners, asked for at every login."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.second_factor import (
    RecoveryCodes,
    SecondFactorRow,
    SecondFactorSetup,
    SecondFactorState,
)
from src.models.session import AccessChange
from src.models.user import UserRow
from src.repositories import accounts as account_rows
from src.repositories import second_factors as factor_rows
from src.repositories import users as user_rows
from src.services import totp
from src.services.access_service import AccessService
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.auth_service import (
    Factor,
    SecondFactor,
    SecondFactorRejectedError,
    SecondFactorRequiredError,
    still_has,
)
from src.services.faults import FieldFaultError
from src.services.lockout import count_failure, is_locked, lockout_event
from src.services.passwords import verify_password
from src.services.seal import Seal, SealBrokenError
from src.services.tokens import AccessToken, InvalidTokenError
from src.utils.database import Database

logger = structlog.get_logger(__name__)


# Uses up the code that was given. Raises SecondFactorRejectedError.
Take = Callable[[AsyncSession, UserRow], Awaitable[None]]


class ProofRejectedError(FieldFaultError):
    """The password or the code is wrong, or the account is locked."""

    def __init__(self, field: str) -> None:
        super().__init__("is not right", field)


class SecondFactorOnError(Exception):
    """The account has a second factor."""


class SecondFactorOffError(Exception):
    """The account has none, or none that waits to be confirmed."""


class SecondFactorService:
    def __init__(
        self,
        database: Database,
        access: AccessService,
        audit: AuditLogger,
        settings: Settings,
    ) -> None:
        self._database = database
        self._access = access
        self._audit = audit
        self._seal = Seal(settings.mfa_keys)

    async def state(self, user_id: UUID) -> SecondFactorState:
        async with self._database.transaction() as session:
            enabled = await account_rows.has_second_factor(session, user_id)
            left = await factor_rows.codes_left(session, user_id) if enabled else 0
        return SecondFactorState(enabled=enabled, recovery_codes_left=left)

    async def set_up(self, access: AccessToken, password: str) -> SecondFactorSetup:
        """Takes the place of one that was not confirmed.

        Raises ProofRejectedError or SecondFactorOnError.
        """
        secret = totp.new_secret()
        async with self._proven(access, "setup", password) as (session, user):
            row = await factor_rows.of_user(session, user.id)
            if row is not None and row.confirmed_at is not None:
                raise SecondFactorOnError
            sealed = self._seal.close(user.id, secret)
            await session.merge(SecondFactorRow(user_id=user.id, sealed_secret=sealed))
        return SecondFactorSetup(
            secret=secret, otpauth_uri=totp.otpauth_uri(secret, access.user.email)
        )

    async def confirm(self, access: AccessToken, code: str) -> RecoveryCodes:
        """From now on it is asked for, and the caller's other sessions end.

        Raises SecondFactorOffError, SecondFactorOnError or ProofRejectedError.
        """

        async def take(session: AsyncSession, user: UserRow) -> None:
            row = await factor_rows.of_user(session, user.id)
            if row is None:
                raise SecondFactorOffError
            if row.confirmed_at is not None:
                raise SecondFactorOnError
            self._use_code(row, code)
            row.confirmed_at = datetime.now(UTC)

        async with self._proven(access, "enabled", None, take) as (session, user):
            return await self._new_codes(session, user, access)

    async def disable(self, access: AccessToken, password: str, given: SecondFactor) -> None:
        """The caller's other sessions end. Raises ProofRejectedError or SecondFactorOffError."""
        take = self._taker(given)
        async with self._proven(access, "disabled", password, take) as (session, user):
            await account_rows.remove_second_factor(session, user.id)
            await self._changed(session, access)

    async def renew_codes(self, access: AccessToken, code: str) -> RecoveryCodes:
        """The earlier ones count no more, and the caller's other sessions end.

        Raises ProofRejectedError or SecondFactorOffError.
        """
        take = self._taker(SecondFactor(code))
        async with self._proven(access, "recovery codes renewed", None, take) as (session, user):
            return await self._new_codes(session, user, access)

    async def check(
        self, session: AsyncSession, user: UserRow, given: SecondFactor
    ) -> Factor | None:
        """Part of a transaction that has locked the user.

        Raises SecondFactorRequiredError, SecondFactorRejectedError or SealBrokenError.
        """
        row = await factor_rows.of_user(session, user.id)
        if row is None or row.confirmed_at is None:
            return None
        if given.otp:
            self._use_code(row, given.otp)
            return Factor.CODE
        if not given.recovery_code:
            raise SecondFactorRequiredError
        hashed = totp.recovery_hash(user.id, given.recovery_code)
        if not await factor_rows.use_code(session, user.id, hashed):
            raise SecondFactorRejectedError
        return Factor.RECOVERY_CODE

    def _use_code(self, row: SecondFactorRow, code: str) -> None:
        """Raises SecondFactorRejectedError if it is wrong or not newer than the last one."""
        secret = self._opened(row)
        step = totp.matching_step(secret, code, time.time(), row.last_step)
        if step is None:
            raise SecondFactorRejectedError
        row.last_step = step
        # With the newest key, so that the older ones can be let go of some day.
        row.sealed_secret = self._seal.close(row.user_id, secret)

    def _opened(self, row: SecondFactorRow) -> str:
        """Raises SealBrokenError: a matter for the operator, not a failure of the user's."""
        try:
            return self._seal.open(row.user_id, row.sealed_secret)
        except SealBrokenError:
            logger.error("second_factor_unreadable", user_id=str(row.user_id))  # noqa: TRY400 - the key is missing
            raise

    def _taker(self, given: SecondFactor) -> Take:
        async def take(session: AsyncSession, user: UserRow) -> None:
            if await self.check(session, user, given) is None:
                raise SecondFactorOffError

        return take

    @asynccontextmanager
    async def _proven(
        self, access: AccessToken, change: str, password: str | None, take: Take | None = None
    ) -> AsyncIterator[tuple[AsyncSession, UserRow]]:
        """A transaction of the user's who has proven to be the owner, by password, code or both.

        What is wrong counts like a failed login. Raises ProofRejectedError, and what `take` does.
        """
        hashed, fits = await self._password_fits(access.user.id, password)
        async with self._database.transaction() as session:
            user = await user_rows.for_update(session, access.user.id)
            if user is None:
                raise InvalidTokenError
            locked = is_locked(user, datetime.now(UTC))
            fault = None if fits and (password is None or still_has(user, hashed)) else "password"
            if not locked and fault is None and take is not None:
                fault = await _fault_of(take, session, user)
            refused = locked or fault is not None
            if not refused:
                yield session, user
            locks = refused and not locked and count_failure(user, datetime.now(UTC))
        await self._record(user, change, Outcome.FAILURE if refused else Outcome.SUCCESS)
        if locks:
            await self._audit.record(lockout_event(user))
        if refused:
            raise ProofRejectedError(fault or ("code" if password is None else "password"))

    async def _password_fits(self, user_id: UUID, password: str | None) -> tuple[str | None, bool]:
        """Before the user is locked, since it takes long; without a password all is well."""
        if password is None:
            return None, True
        async with self._database.transaction() as session:
            user = await user_rows.by_id(session, user_id)
        hashed = user.password_hash if user is not None else None
        fits, _ = await verify_password(password, hashed)
        return hashed, fits

    async def _new_codes(
        self, session: AsyncSession, user: UserRow, access: AccessToken
    ) -> RecoveryCodes:
        codes = totp.new_recovery_codes()
        await self._keep(session, user.id, codes)
        await self._changed(session, access)
        return RecoveryCodes(recovery_codes=codes)

    async def _keep(self, session: AsyncSession, user_id: UUID, codes: list[str]) -> None:
        hashes = [totp.recovery_hash(user_id, code) for code in codes]
        await factor_rows.replace_codes(session, user_id, hashes)

    async def _changed(self, session: AsyncSession, access: AccessToken) -> None:
        await self._access.changed(
            session,
            user_id=access.user.id,
            why=AccessChange.SECOND_FACTOR_CHANGE,
            spared_session_id=access.session_id,
        )

    async def _record(self, user: UserRow, change: str, outcome: Outcome) -> None:
        await self._audit.record(
            AuditEvent(
                Action.MFA_CHANGE,
                outcome,
                actor_id=user.id,
                actor=user.email,
                target=f"user:{user.id}",
                details={"change": change},
            )
        )


async def _fault_of(take: Take, session: AsyncSession, user: UserRow) -> str | None:
    try:
        await take(session, user)
    except SecondFactorRejectedError:
        return "code"
    return None
