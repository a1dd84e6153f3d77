"""Login with a password, and a second factor where the account has one."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.user import Token, UserRow
from src.repositories import users as user_rows
from src.services.audit_logger import Action, AuditEvent, Outcome
from src.services.auth.devices import Device, Devices
from src.services.auth.email_addresses import normalise_email
from src.services.auth.errors import (
    DecryptionError,
    EmailRejectedError,
    SecondFactorRejectedError,
    SecondFactorRequiredError,
    WrongCredentialsError,
)
from src.services.auth.login_attempts import Attempt, LoginAttempts, Origin
from src.services.auth.session_service import Client, SessionService


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
        SecondFactorRejectedError if it is wrong, DecryptionError if no key opens it.
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
    SECOND_FACTOR_UNREADABLE = "second factor unreadable"


@dataclass(frozen=True, slots=True)
class Login:
    """The tokens of a new session, and the cookie by which the browser is known from now on."""

    token: Token
    device: str


@dataclass(frozen=True, slots=True)
class _Admitted:
    """Whose login is right, and by which second factor, where the account has one."""

    user: UserRow
    factor: Factor | None


class AuthService:
    def __init__(
        self,
        attempts: LoginAttempts,
        sessions: SessionService,
        second_factors: SecondFactors,
        devices: Devices,
    ) -> None:
        self._attempts = attempts
        self._sessions = sessions
        self._second_factors = second_factors
        self._devices = devices

    async def log_in(
        self, credentials: Credentials, client: Client, device: Device | None
    ) -> Login:
        """Raises WrongCredentialsError, after the same work whatever was wrong.

        Raises SecondFactorRequiredError, SecondFactorRejectedError or DecryptionError if all else
        is right.
        """
        address = _address(credentials.email)

        async def find(session: AsyncSession) -> UserRow | None:
            return await user_rows.by_email(session, address)

        origin = Origin(client.address, device)
        async with self._attempts.verify(find, credentials.password, origin) as attempt:
            decision = await self._decide(attempt, credentials.second_factor)
            if isinstance(decision, Refusal):
                attempt.event = _failure(attempt.user, decision)
            else:
                login = await self._begin(attempt, decision, client)
        if isinstance(decision, Refusal):
            raise _error_of(decision)
        return login

    async def _decide(self, attempt: Attempt, given: SecondFactor) -> Refusal | _Admitted:
        user = attempt.user
        if user is None:
            return Refusal.UNKNOWN
        if not user.active:
            return Refusal.INACTIVE
        if attempt.locked:
            return Refusal.LOCKED
        if not attempt.password_ok:
            attempt.fail()
            return Refusal.PASSWORD
        return await self._ask_second_factor(attempt, user, given)

    async def _ask_second_factor(
        self, attempt: Attempt, user: UserRow, given: SecondFactor
    ) -> Refusal | _Admitted:
        try:
            factor = await self._second_factors.check(attempt.session, user, given)
        except SecondFactorRequiredError:
            return Refusal.SECOND_FACTOR_MISSING
        except SecondFactorRejectedError:
            attempt.fail()
            return Refusal.SECOND_FACTOR
        except DecryptionError:
            return Refusal.SECOND_FACTOR_UNREADABLE
        return _Admitted(user, factor)

    async def _begin(self, attempt: Attempt, admitted: _Admitted, client: Client) -> Login:
        user, factor = admitted.user, admitted.factor
        await attempt.succeed(user)
        session_id, token = self._sessions.begin(attempt.session, user, client)
        attempt.event = AuditEvent(
            Action.LOGIN,
            actor_id=user.id,
            actor=user.email,
            target=f"session:{session_id}",
            details={"second_factor": factor.value} if factor is not None else {},
        )
        device = attempt.origin.device
        return Login(token, self._devices.issue(user.email, user.password_hash, device))


def _failure(user: UserRow | None, refusal: Refusal) -> AuditEvent:
    """Without what was typed as the address of nobody: it may be a password."""
    return AuditEvent(
        Action.LOGIN,
        Outcome.FAILURE,
        actor_id=user.id if user is not None else None,
        actor=user.email if user is not None else None,
        details={"reason": refusal.value},
    )


def _error_of(refusal: Refusal) -> Exception:
    """What who tried is told: of the second factor only those who know the password."""
    errors: dict[Refusal, type[Exception]] = {
        Refusal.SECOND_FACTOR_MISSING: SecondFactorRequiredError,
        Refusal.SECOND_FACTOR: SecondFactorRejectedError,
        Refusal.SECOND_FACTOR_UNREADABLE: DecryptionError,
    }
    return errors.get(refusal, WrongCredentialsError)()


def _address(email: str) -> str:
    try:
        return normalise_email(email)
    except EmailRejectedError:
        # No account has this address, and the search for it takes the same time.
        return ""
