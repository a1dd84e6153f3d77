"""Second factors: set up and removed by their owners, asked for at every login."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.second_factor import (
    Proof,
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
    SecondFactor,
    SecondFactorRejectedError,
    SecondFactorRequiredError,
    still_has,
)
from src.services.lockout import count_failure, is_locked, lockout_event, unlock
from src.services.passwords import verify_password
from src.services.seal import Seal, SealBrokenError
from src.services.tokens import AccessToken
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import Database

logger = structlog.get_logger(__name__)


class ProofRejectedError(Exception):
    """The password or the code is wrong, or the account is locked. `field` is what was given."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


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
        jobs: BackgroundJobs,
        settings: Settings,
    ) -> None:
        self._database = database
        self._access = access
        self._audit = audit
        self._jobs = jobs
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
        async with self._proven(access, Proof(password=password)) as (session, user):
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
        codes = totp.new_recovery_codes()
        async with self._database.transaction() as session:
            user = await user_rows.for_update(session, access.user.id)
            row = await factor_rows.of_user(session, access.user.id)
            if user is None or row is None:
                raise SecondFactorOffError
            if row.confirmed_at is not None:
                raise SecondFactorOnError
            if not self._takes_code(row, code):
                raise ProofRejectedError("code")
            row.confirmed_at = datetime.now(UTC)
            await self._keep(session, user.id, codes)
            await self._changed(session, access)
        await self._record(user, "enabled")
        return RecoveryCodes(recovery_codes=codes)

    async def disable(self, access: AccessToken, proof: Proof) -> None:
        """The caller's other sessions end. Raises ProofRejectedError or SecondFactorOffError."""
        async with self._proven(access, proof) as (session, user):
            if not await account_rows.remove_second_factor(session, user.id):
                raise SecondFactorOffError
            await self._changed(session, access)
        await self._record(user, "disabled")

    async def renew_codes(self, access: AccessToken, proof: Proof) -> RecoveryCodes:
        """The earlier ones count no more. Raises ProofRejectedError or SecondFactorOffError."""
        codes = totp.new_recovery_codes()
        async with self._proven(access, proof) as (session, user):
            if not await account_rows.has_second_factor(session, user.id):
                raise SecondFactorOffError
            await self._keep(session, user.id, codes)
        await self._record(user, "recovery codes renewed")
        return RecoveryCodes(recovery_codes=codes)

    async def check(self, session: AsyncSession, user: UserRow, given: SecondFactor) -> None:
        """Part of a transaction that has locked the user.

        Raises SecondFactorRequiredError or SecondFactorRejectedError.
        """
        row = await factor_rows.of_user(session, user.id)
        if row is None or row.confirmed_at is None:
            return
        if given.otp:
            if not self._takes_code(row, given.otp):
                raise SecondFactorRejectedError
        elif given.recovery_code:
            hashed = totp.recovery_hash(user.id, given.recovery_code)
            if not await factor_rows.use_code(session, user.id, hashed):
                raise SecondFactorRejectedError
            self._jobs.start(self._record(user, "recovery code used"))
        else:
            raise SecondFactorRequiredError

    def _takes_code(self, row: SecondFactorRow, code: str) -> bool:
        """Whether it is right and newer than the last one, which it then becomes."""
        try:
            secret = self._seal.open(row.user_id, row.sealed_secret)
        except SealBrokenError:
            logger.error("second_factor_unreadable", user_id=str(row.user_id))  # noqa: TRY400 - the key is missing
            return False
        step = totp.matching_step(secret, code, time.time(), row.last_step)
        if step is None:
            return False
        row.last_step = step
        # With the newest key, so that the older ones can be let go of some day.
        row.sealed_secret = self._seal.close(row.user_id, secret)
        return True

    @asynccontextmanager
    async def _proven(
        self, access: AccessToken, proof: Proof
    ) -> AsyncIterator[tuple[AsyncSession, UserRow]]:
        """A transaction that has locked the user. What is wrong counts like a failed login."""
        hashed, fits = await self._password_fits(access.user.id, proof.password)
        async with self._database.transaction() as session:
            user = await user_rows.for_update(session, access.user.id)
            now = datetime.now(UTC)
            locked = user is None or is_locked(user, now)
            if user is not None and not locked:
                if proof.password is not None:
                    fits = fits and still_has(user, hashed)
                else:
                    fits = await self._code_fits(session, user, proof)
                if fits:
                    unlock(user)
                    yield session, user
                    return
                locks = count_failure(user, now)
        await self._record_failure(access, user if not locked and locks else None)
        raise ProofRejectedError(min(proof.model_dump(exclude_none=True)))

    async def _password_fits(self, user_id: UUID, password: str | None) -> tuple[str | None, bool]:
        if password is None:
            return None, False
        async with self._database.transaction() as session:
            user = await user_rows.by_id(session, user_id)
        hashed = user.password_hash if user is not None else None
        fits, _ = await verify_password(password, hashed)
        return hashed, fits

    async def _code_fits(self, session: AsyncSession, user: UserRow, proof: Proof) -> bool:
        if not await account_rows.has_second_factor(session, user.id):
            raise SecondFactorOffError
        try:
            await self.check(session, user, SecondFactor(proof.code, proof.recovery_code))
        except (SecondFactorRejectedError, SecondFactorRequiredError):
            return False
        return True

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

    async def _record(self, user: UserRow, change: str) -> None:
        await self._audit.record(
            AuditEvent(
                Action.MFA_CHANGE,
                actor_id=user.id,
                actor=user.email,
                target=f"user:{user.id}",
                details={"change": change},
            )
        )

    async def _record_failure(self, access: AccessToken, locked: UserRow | None) -> None:
        await self._audit.record(
            AuditEvent(
                Action.MFA_CHANGE,
                Outcome.FAILURE,
                actor_id=access.user.id,
                actor=access.user.email,
                target=f"user:{access.user.id}",
                details={"reason": "wrong password or code"},
            )
        )
        if locked is not None:
            await self._audit.record(lockout_event(locked))
