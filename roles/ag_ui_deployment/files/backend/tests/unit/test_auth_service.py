"""Logins: what each kind of failure raises, records and counts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from src.models.user import Token, UserRow
from src.services.audit_logger import Outcome
from src.services.auth.devices import Devices
from src.services.auth.errors import (
    DecryptionError,
    SecondFactorRejectedError,
    SecondFactorRequiredError,
    WrongCredentialsError,
)
from src.services.auth.login_attempts import Attempt, LoginAttempts, Origin
from src.services.auth.second_factor_service import (
    FactorKind,
    SecondFactor,
    SecondFactorService,
)
from src.services.auth.session_service import Client, SessionService
from src.services.auth_service import AuthService, Credentials
from tests.support.builders import settings_of

EMAIL = "alice@shield.test"
SESSION_ID = UUID(int=1)
TOKEN = Token(access_token="a", expires_in=1, refresh_token="r", refresh_expires_in=2)
CLIENT = Client("192.0.2.1", None)


class StubAttempt(Attempt):
    """Counts calls instead of writing to the database."""

    outcomes: list[str]

    def fail(self) -> None:
        self.outcomes.append("failed")

    async def succeed(self, user: UserRow) -> None:
        assert user is self.user
        self.outcomes.append("succeeded")


class StubAttempts:
    def __init__(self, user: UserRow | None, *, locked: bool, password_ok: bool) -> None:
        self._user = user
        self._locked = locked
        self._password_ok = password_ok
        self.attempt: StubAttempt

    @asynccontextmanager
    async def verify(
        self, _find: object, _password: str, origin: Origin
    ) -> AsyncIterator[StubAttempt]:
        unused: Any = None
        self.attempt = StubAttempt(
            unused, self._user, origin, unused, self._locked, self._password_ok
        )
        self.attempt.outcomes = []
        yield self.attempt


class StubSessions:
    def begin(self, _session: object, _user: UserRow, _client: Client) -> tuple[UUID, Token]:
        return SESSION_ID, TOKEN


class StubSecondFactors:
    def __init__(self, result: FactorKind | Exception | None) -> None:
        self._result = result

    async def check(
        self, _session: object, _user: UserRow, _given: SecondFactor
    ) -> FactorKind | None:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def account(*, active: bool = True) -> UserRow:
    return UserRow(id=uuid4(), email=EMAIL, password_hash="hash", role="viewer", active=active)


def service(attempts: StubAttempts, second: FactorKind | Exception | None = None) -> AuthService:
    return AuthService(
        cast("LoginAttempts", attempts),
        cast("SessionService", StubSessions()),
        cast("SecondFactorService", StubSecondFactors(second)),
        Devices(settings_of()),
    )


@pytest.mark.parametrize("factor", [None, FactorKind.CODE, FactorKind.RECOVERY_CODE])
async def test_login_begins_a_session(factor: FactorKind | None) -> None:
    attempts = StubAttempts(account(), locked=False, password_ok=True)
    login = await service(attempts, factor).log_in(Credentials(EMAIL, "right"), CLIENT, None)
    assert login.token == TOKEN
    assert login.device
    assert attempts.attempt.outcomes == ["succeeded"]
    event = attempts.attempt.event
    assert event is not None
    assert (event.actor, event.target) == (EMAIL, f"session:{SESSION_ID}")
    assert event.details == ({"second_factor": factor.value} if factor else {})


@pytest.mark.parametrize(
    ("user", "locked", "password_ok", "reason"),
    [
        (None, False, False, "unknown account"),
        (account(active=False), False, True, "inactive account"),
        (account(), True, True, "locked account"),
        (account(), False, False, "wrong password"),
    ],
)
async def test_refused_logins_have_the_same_error(
    user: UserRow | None, *, locked: bool, password_ok: bool, reason: str
) -> None:
    attempts = StubAttempts(user, locked=locked, password_ok=password_ok)
    with pytest.raises(WrongCredentialsError):
        await service(attempts).log_in(Credentials(EMAIL, "password"), CLIENT, None)
    event = attempts.attempt.event
    assert event is not None
    assert event.outcome is Outcome.FAILURE
    assert event.details == {"reason": reason}
    # An unknown address may be a mistyped password.
    assert event.actor == (user and EMAIL)
    assert attempts.attempt.outcomes == (["failed"] if reason == "wrong password" else [])


@pytest.mark.parametrize(
    ("error", "reason", "outcomes"),
    [
        (SecondFactorRequiredError(), "second factor missing", []),
        (SecondFactorRejectedError(), "wrong second factor", ["failed"]),
        (DecryptionError(), "second factor unreadable", []),
    ],
)
async def test_second_factor_errors_reach_the_client(
    error: Exception, reason: str, outcomes: list[str]
) -> None:
    attempts = StubAttempts(account(), locked=False, password_ok=True)
    with pytest.raises(type(error)):
        await service(attempts, error).log_in(Credentials(EMAIL, "right"), CLIENT, None)
    assert attempts.attempt.event is not None
    assert attempts.attempt.event.details == {"reason": reason}
    assert attempts.attempt.outcomes == outcomes
