"""Set-up, removal and verification of second factors."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.second_factor import (
    IssuedRecoveryCodes,
    SecondFactorRow,
    SecondFactorSetup,
    SecondFactorState,
)
from src.models.session import AccessChangeReason
from src.models.user import UserRow
from src.repositories import accounts as account_rows
from src.repositories import second_factors as factor_rows
from src.repositories import users as user_rows
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditEvent, Outcome
from src.services.auth import totp
from src.services.auth.access_service import AccessService
from src.services.auth.errors import (
    DecryptionError,
    NotAuthenticatedError,
    ProofRejectedError,
    SecondFactorOffError,
    SecondFactorOnError,
    SecondFactorRejectedError,
    SecondFactorRequiredError,
)
from src.services.auth.login_attempts import Attempt, LoginAttempts, Origin
from src.services.auth.secret_box import SecretBox
from src.services.auth.tokens import AccessToken
from src.utils.database import Database

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SecondFactor:
    otp: str | None = None
    recovery_code: str | None = None


class FactorKind(StrEnum):
    CODE = "code"
    RECOVERY_CODE = "recovery code"


# Verifies and consumes a code. Raises SecondFactorRejectedError or DecryptionError.
VerifyCode = Callable[[AsyncSession, UserRow], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Proof:
    """Proof of ownership: the password, a code, or both.

    `verify_code` verifies and consumes the code, `field` is the input field of the code.
    """

    password: str | None = None
    verify_code: VerifyCode | None = None
    field: str = "code"


class SecondFactorService:
    def __init__(
        self,
        database: Database,
        access: AccessService,
        attempts: LoginAttempts,
        settings: Settings,
    ) -> None:
        self._database = database
        self._access = access
        self._attempts = attempts
        self._secret_box = SecretBox(settings.mfa_keys)

    async def state(self, user_id: UUID) -> SecondFactorState:
        async with self._database.transaction() as session:
            enabled = await account_rows.has_second_factor(session, user_id)
            codes_left = await factor_rows.codes_left(session, user_id) if enabled else 0
        return SecondFactorState(enabled=enabled, recovery_codes_left=codes_left)

    async def set_up(self, access: AccessToken, password: str) -> SecondFactorSetup:
        """Create a second factor. It replaces an unconfirmed one, and is required once confirmed.

        Raises:
            ProofRejectedError: The password is wrong, or the session is locked out.
            SecondFactorOnError: The account has a confirmed second factor.
        """
        secret = totp.new_secret()
        async with self._verified(access, "setup", _Proof(password)) as (session, user):
            row = await factor_rows.of_user(session, user.id)
            if row is not None and row.confirmed_at is not None:
                raise SecondFactorOnError
            ciphertext = self._secret_box.encrypt(user.id, secret)
            await session.merge(SecondFactorRow(user_id=user.id, sealed_secret=ciphertext))
        return SecondFactorSetup(
            secret=secret, otpauth_uri=totp.otpauth_uri(secret, access.user.email)
        )

    async def confirm(self, access: AccessToken, code: str) -> IssuedRecoveryCodes:
        """Confirm the second factor with a code, and end the caller's other sessions.

        Returns:
            The recovery codes.

        Raises:
            SecondFactorOffError: The account has no second factor.
            SecondFactorOnError: It is already confirmed.
            ProofRejectedError: The code is wrong, or the session is locked out.
            DecryptionError: No key decrypts the stored secret.
        """

        async def verify_code(session: AsyncSession, user: UserRow) -> None:
            row = await factor_rows.of_user(session, user.id)
            if row is None:
                raise SecondFactorOffError
            if row.confirmed_at is not None:
                raise SecondFactorOnError
            self._use_code(row, code)
            row.confirmed_at = datetime.now(UTC)

        async with self._verified(access, "enabled", _Proof(verify_code=verify_code)) as (
            session,
            user,
        ):
            return await self._new_codes(session, user, access)

    async def disable(
        self, access: AccessToken, password: str, second_factor: SecondFactor
    ) -> None:
        """Remove the second factor and end the caller's other sessions.

        Raises:
            ProofRejectedError: The password or the code is wrong, or the session is locked out.
            SecondFactorOffError: The account has no confirmed second factor.
            DecryptionError: No key decrypts the stored secret.
        """
        proof = self._proof(second_factor, password)
        async with self._verified(access, "disabled", proof) as (session, user):
            await account_rows.remove_second_factor(session, user.id)
            await self._publish_change(session, access)

    async def renew_codes(self, access: AccessToken, code: str) -> IssuedRecoveryCodes:
        """Replace the recovery codes and end the caller's other sessions.

        Raises:
            ProofRejectedError: The code is wrong, or the session is locked out.
            SecondFactorOffError: The account has no confirmed second factor.
            DecryptionError: No key decrypts the stored secret.
        """
        proof = self._proof(SecondFactor(code))
        async with self._verified(access, "recovery codes renewed", proof) as (session, user):
            return await self._new_codes(session, user, access)

    async def check(
        self, session: AsyncSession, user: UserRow, second_factor: SecondFactor
    ) -> FactorKind | None:
        """Verify and consume a second factor in a transaction that has locked the account.

        Returns:
            The kind of the accepted factor, None if the account has no confirmed second factor.

        Raises:
            SecondFactorRequiredError: None is given.
            SecondFactorRejectedError: It is wrong or already used.
            DecryptionError: No key decrypts the stored secret.
        """
        row = await factor_rows.of_user(session, user.id)
        if row is None or row.confirmed_at is None:
            return None
        if second_factor.otp:
            self._use_code(row, second_factor.otp)
            return FactorKind.CODE
        if not second_factor.recovery_code:
            raise SecondFactorRequiredError
        hashed = totp.recovery_hash(user.id, second_factor.recovery_code)
        if not await factor_rows.use_code(session, user.id, hashed):
            raise SecondFactorRejectedError
        return FactorKind.RECOVERY_CODE

    def _use_code(self, row: SecondFactorRow, code: str) -> None:
        """Verify a TOTP code and store its time step.

        Raises:
            SecondFactorRejectedError: It is wrong, or not newer than the last accepted one.
            DecryptionError: No key decrypts the stored secret.
        """
        secret = self._decrypted_secret(row)
        step = totp.matching_step(secret, code, time.time(), row.last_step)
        if step is None:
            raise SecondFactorRejectedError
        row.last_step = step
        # Encrypt with the current key, so that former keys can be removed eventually.
        row.sealed_secret = self._secret_box.encrypt(row.user_id, secret)

    def _decrypted_secret(self, row: SecondFactorRow) -> str:
        """Decrypt the secret. An error is logged for the operator and is no failure of the user.

        Raises:
            DecryptionError: No key decrypts it.
        """
        try:
            return self._secret_box.decrypt(row.user_id, row.sealed_secret)
        except DecryptionError:
            logger.error("second_factor_unreadable", user_id=str(row.user_id))  # noqa: TRY400 - no bug
            raise

    def _proof(self, second_factor: SecondFactor, password: str | None = None) -> _Proof:
        async def verify_code(session: AsyncSession, user: UserRow) -> None:
            if await self.check(session, user, second_factor) is None:
                raise SecondFactorOffError

        return _Proof(
            password, verify_code, "recovery_code" if second_factor.recovery_code else "code"
        )

    @asynccontextmanager
    async def _verified(
        self, access: AccessToken, change: str, proof: _Proof
    ) -> AsyncIterator[tuple[AsyncSession, UserRow]]:
        """Verify a proof, then yield the transaction and the locked account.

        A wrong proof counts like a failed login of this session.

        Raises:
            ProofRejectedError: The proof is wrong, or the session is locked out.
            DecryptionError: No key decrypts the stored secret.
            NotAuthenticatedError: The account was deleted.
        """
        find = partial(user_rows.by_id, user_id=access.user.id)
        origin = Origin(session_id=access.session_id)
        async with self._attempts.verify(find, proof.password, origin) as attempt:
            user = attempt.user
            if user is None:
                raise NotAuthenticatedError
            error = await _verify(proof, attempt, user)
            attempt.event = _event(user, change, Outcome.FAILURE if error else Outcome.SUCCESS)
            if error is None:
                yield attempt.session, user
        if error is not None:
            raise error

    async def _new_codes(
        self, session: AsyncSession, user: UserRow, access: AccessToken
    ) -> IssuedRecoveryCodes:
        codes = totp.new_recovery_codes()
        hashes = [totp.recovery_hash(user.id, code) for code in codes]
        await factor_rows.replace_codes(session, user.id, hashes)
        await self._publish_change(session, access)
        return IssuedRecoveryCodes(recovery_codes=codes)

    async def _publish_change(self, session: AsyncSession, access: AccessToken) -> None:
        await self._access.publish_change(
            session,
            user_id=access.user.id,
            reason=AccessChangeReason.SECOND_FACTOR_CHANGE,
            spared_session_id=access.session_id,
        )


def _event(user: UserRow, change: str, outcome: Outcome) -> AuditEvent:
    details = {"change": change}
    return Actor.of(user).audit_event(Action.MFA_CHANGE, f"user:{user.id}", details, outcome)


async def _verify(proof: _Proof, attempt: Attempt, user: UserRow) -> Exception | None:
    """Verify a proof and count a failure. Returns the error, None if the proof is valid."""
    if attempt.locked:
        return ProofRejectedError(proof.field if proof.password is None else "password")
    if not attempt.password_ok:
        attempt.fail()
        return ProofRejectedError("password")
    try:
        if proof.verify_code is not None:
            await proof.verify_code(attempt.session, user)
    except SecondFactorRejectedError:
        attempt.fail()
        return ProofRejectedError(proof.field)
    except DecryptionError as error:
        return error
    return None
