"""Login with a password, and a second factor where the account has one."""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.user import Token, UserRow
from src.repositories import users as user_rows
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.email_addresses import EmailRejectedError, normalise_email
from src.services.lockout import count_failure, is_locked, lockout_event, unlock
from src.services.passwords import verify_password
from src.services.session_service import Client, SessionService
from src.utils.database import Database

logger = structlog.get_logger(__name__)


class WrongCredentialsError(Exception):
    """The address or the password is wrong, or the account is locked or not active."""


class SecondFactorRequiredError(Exception):
    """The password is right, and the account asks for a second factor."""


class SecondFactorRejectedError(Exception):
    """The second factor is wrong, or was used before."""


@dataclass(frozen=True, slots=True)
class SecondFactor:
    otp: str | None = None
    recovery_code: str | None = None


class Factor(StrEnum):
    CODE = "code"
    RECOVERY_CODE = "recovery code"


class SecondFactors(Protocol):
    async def check(
        self, session: AsyncSession, user: UserRow, given: SecondFactor
    ) -> Factor | None:
        """Part of the transaction of a login whose password is right: uses up what is given.

        None for an account that has no second factor.
        Raises SecondFactorRequiredError if the account has one and none is given,
        SecondFactorRejectedError if it is wrong.
        """


@dataclass(frozen=True, slots=True)
class Credentials:
    email: str
    password: str
    second_factor: SecondFactor = field(default_factory=SecondFactor)


class Refusal(StrEnum):
    """Why a login failed: for the audit, and never for who tried."""

    UNKNOWN = "unknown account"
    INACTIVE = "inactive account"
    LOCKED = "locked account"
    PASSWORD = "wrong password"  # noqa: S105 - a reason
    SECOND_FACTOR_MISSING = "second factor missing"
    SECOND_FACTOR = "wrong second factor"


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How a login ended; `locks` if it was the failure that locked the account."""

    user: UserRow | None
    refusal: Refusal | None = None
    locks: bool = False
    factor: Factor | None = None
    session_id: UUID | None = None
    token: Token | None = None


class AuthService:
    def __init__(
        self,
        database: Database,
        sessions: SessionService,
        audit: AuditLogger,
        second_factors: SecondFactors,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._audit = audit
        self._second_factors = second_factors

    async def log_in(self, credentials: Credentials, client: Client) -> Token:
        """Raises WrongCredentialsError, after the same work whatever was wrong.

        Raises SecondFactorRequiredError or SecondFactorRejectedError if all else is right.
        """
        async with self._database.transaction() as session:
            row = await user_rows.by_email(session, _address(credentials.email))
        hashed = row.password_hash if row is not None else None
        fits, new_hash = await verify_password(credentials.password, hashed)
        async with self._database.transaction() as session:
            # Also where there is none, so that it takes as long.
            user = await user_rows.for_update(session, row.id if row is not None else uuid4())
            attempt = await self._decide(
                session, user, fits and still_has(user, hashed), credentials
            )
            if user is not None and attempt.refusal is None:
                unlock(user)
                user.password_hash = new_hash or user.password_hash
                session_id, token = self._sessions.begin(session, user, client)
                attempt = replace(attempt, session_id=session_id, token=token)
        await self._record(attempt, credentials.email)
        if attempt.token is None:
            raise _refusal(attempt)
        return attempt.token

    async def _decide(
        self,
        session: AsyncSession,
        user: UserRow | None,
        fits: bool,  # noqa: FBT001 - what was just found out
        credentials: Credentials,
    ) -> _Attempt:
        now = datetime.now(UTC)
        if user is None:
            return _Attempt(None, Refusal.UNKNOWN)
        if not user.active:
            return _Attempt(user, Refusal.INACTIVE)
        if is_locked(user, now):
            return _Attempt(user, Refusal.LOCKED)
        if not fits:
            return _Attempt(user, Refusal.PASSWORD, locks=count_failure(user, now))
        return await self._ask_second_factor(session, user, credentials.second_factor)

    async def _ask_second_factor(
        self, session: AsyncSession, user: UserRow, given: SecondFactor
    ) -> _Attempt:
        try:
            factor = await self._second_factors.check(session, user, given)
        except SecondFactorRequiredError:
            return _Attempt(user, Refusal.SECOND_FACTOR_MISSING)
        except SecondFactorRejectedError:
            locks = count_failure(user, datetime.now(UTC))
            return _Attempt(user, Refusal.SECOND_FACTOR, locks=locks)
        return _Attempt(user, factor=factor)

    async def _record(self, attempt: _Attempt, email: str) -> None:
        user, refusal = attempt.user, attempt.refusal
        details = {"reason": refusal.value} if refusal is not None else {}
        if attempt.factor is not None:
            details["second_factor"] = attempt.factor.value
        if user is None:
            # What was typed may be a password.
            details["address_sha256"] = hashlib.sha256(email.encode()).hexdigest()[:12]
        await self._audit.record(
            AuditEvent(
                Action.LOGIN,
                Outcome.FAILURE if refusal is not None else Outcome.SUCCESS,
                actor_id=user.id if user is not None else None,
                actor=user.email if user is not None else None,
                target=f"session:{attempt.session_id}" if attempt.session_id else None,
                details=details,
            )
        )
        if attempt.locks and user is not None:
            await self._audit.record(lockout_event(user))


def _refusal(attempt: _Attempt) -> Exception:
    """What who tried is told: of the second factor only those who know the password."""
    if attempt.refusal is Refusal.SECOND_FACTOR_MISSING:
        return SecondFactorRequiredError()
    if attempt.refusal is Refusal.SECOND_FACTOR:
        return SecondFactorRejectedError()
    return WrongCredentialsError()


def still_has(user: UserRow | None, hashed: str | None) -> bool:
    """Whether the password that was looked at is still the account's."""
    return user is not None and user.password_hash == hashed


def _address(email: str) -> str:
    try:
        return normalise_email(email)
    except EmailRejectedError:
        # No account has this address, and the search for it takes the same time.
        return ""
