"""Login with a password and, if the account has one, a second factor."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from src.models.user import Token, UserRow
from src.repositories import users as user_rows
from src.services.audit.actors import Actor
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
from src.services.auth.second_factor_service import FactorKind, SecondFactor, SecondFactorService
from src.services.auth.session_service import Client, SessionService


@dataclass(frozen=True, slots=True)
class Credentials:
    email: str
    password: str
    second_factor: SecondFactor = field(default_factory=SecondFactor)


class Refusal(StrEnum):
    """The reason for a failed login. It is recorded in the audit log and hidden from the client."""

    UNKNOWN = "unknown account"
    INACTIVE = "inactive account"
    LOCKED = "locked account"
    PASSWORD = "wrong password"  # noqa: S105 - no password
    SECOND_FACTOR_MISSING = "second factor missing"
    SECOND_FACTOR = "wrong second factor"
    SECOND_FACTOR_UNREADABLE = "second factor unreadable"


@dataclass(frozen=True, slots=True)
class Login:
    """The tokens of a new session, and the device cookie for the browser."""

    token: Token
    device: str


@dataclass(frozen=True, slots=True)
class _AcceptedLogin:
    """An accepted login, with the kind of its second factor or None."""

    user: UserRow
    factor: FactorKind | None


class AuthService:
    def __init__(
        self,
        attempts: LoginAttempts,
        sessions: SessionService,
        second_factors: SecondFactorService,
        devices: Devices,
    ) -> None:
        self._attempts = attempts
        self._sessions = sessions
        self._second_factors = second_factors
        self._devices = devices

    async def log_in(
        self, credentials: Credentials, client: Client, device: Device | None
    ) -> Login:
        """Verify the credentials and begin a session.

        The work, and so the response time, does not depend on what was wrong.

        Args:
            credentials: The email address, the password, and the second factor if there is one.
            client: The address and browser of the client.
            device: The device cookie, if the browser sent a valid one.

        Raises:
            WrongCredentialsError: The address or the password is wrong, or the account is locked or
                inactive.
            SecondFactorRequiredError: Only the second factor is missing.
            SecondFactorRejectedError: Only the second factor is wrong.
            DecryptionError: Only the stored secret of the second factor cannot be decrypted.
        """
        find = partial(user_rows.by_email, email=_normalised_email(credentials.email))
        origin = Origin(client.address, device)
        async with self._attempts.verify(find, credentials.password, origin) as attempt:
            result = await self._decide(attempt, credentials.second_factor)
            if isinstance(result, Refusal):
                attempt.event = _failure_event(attempt.user, result)
            else:
                login = await self._begin(attempt, result, client)
        if isinstance(result, Refusal):
            raise _client_error(result)
        return login

    async def _decide(
        self, attempt: Attempt, second_factor: SecondFactor
    ) -> Refusal | _AcceptedLogin:
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
        return await self._ask_second_factor(attempt, user, second_factor)

    async def _ask_second_factor(
        self, attempt: Attempt, user: UserRow, second_factor: SecondFactor
    ) -> Refusal | _AcceptedLogin:
        try:
            factor = await self._second_factors.check(attempt.session, user, second_factor)
        except SecondFactorRequiredError:
            return Refusal.SECOND_FACTOR_MISSING
        except SecondFactorRejectedError:
            attempt.fail()
            return Refusal.SECOND_FACTOR
        except DecryptionError:
            return Refusal.SECOND_FACTOR_UNREADABLE
        return _AcceptedLogin(user, factor)

    async def _begin(self, attempt: Attempt, accepted: _AcceptedLogin, client: Client) -> Login:
        user, factor = accepted.user, accepted.factor
        await attempt.succeed(user)
        session_id, token = self._sessions.begin(attempt.session, user, client)
        details = {"second_factor": factor.value} if factor is not None else {}
        attempt.event = Actor.of(user).audit_event(Action.LOGIN, f"session:{session_id}", details)
        device = attempt.origin.device
        return Login(token, self._devices.issue(user.email, user.password_hash, device))


def _failure_event(user: UserRow | None, refusal: Refusal) -> AuditEvent:
    """The entry of a failed login. It omits an unknown address, which may be a mistyped password."""
    return AuditEvent(
        Action.LOGIN,
        Outcome.FAILURE,
        actor_id=user.id if user is not None else None,
        actor=user.email if user is not None else None,
        details={"reason": refusal.value},
    )


def _client_error(refusal: Refusal) -> Exception:
    """The error for the client. Errors about the second factor imply that the password was right."""
    errors: dict[Refusal, type[Exception]] = {
        Refusal.SECOND_FACTOR_MISSING: SecondFactorRequiredError,
        Refusal.SECOND_FACTOR: SecondFactorRejectedError,
        Refusal.SECOND_FACTOR_UNREADABLE: DecryptionError,
    }
    return errors.get(refusal, WrongCredentialsError)()


def _normalised_email(email: str) -> str:
    try:
        return normalise_email(email)
    except EmailRejectedError:
        # No account has this address. It is looked up anyway, so that the time is the same.
        return ""
