"""Second factors over HTTP: setup, login, single use, loss and removal."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pyotp
import pytest

from src import cli
from src.commands import second_factors
from src.models.permissions import Role
from src.models.user import User
from src.services.audit_logger import Action, Outcome
from src.services.auth import passwords as auth_passwords
from src.services.auth import second_factor_service
from tests.support.accounts import ask_login, bearer, is_logged_in, login, recording
from tests.support.builders import JWT_SECRET
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import PASSWORD, Backend, running

ALICE = "alice@shield.test"


class Clock:
    """The service's clock, which a test advances."""

    def __init__(self) -> None:
        self.now = float(int(time.time()) // 30 * 30)

    def time(self) -> float:
        return self.now

    def next_code(self, secret: str) -> str:
        self.now += 30
        return pyotp.TOTP(secret).at(int(self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(second_factor_service, "time", fake)
    return fake


@pytest.fixture
async def alice(backend: Backend) -> User:
    return await backend.add_user(ALICE)


Operator = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def operator(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    """Runs the command with these settings in addition to those of the backend."""
    monkeypatch.setenv("DATABASE_URL", environment.database_url)
    monkeypatch.setenv("JWT_SECRET", JWT_SECRET)

    async def reseal(**settings: str) -> tuple[int, str]:
        capsys.readouterr()
        with monkeypatch.context() as variables:
            for name, value in settings.items():
                variables.setenv(name, value)
            code = await asyncio.to_thread(cli.main, ["second-factors", "reseal"])
        return code, capsys.readouterr().out.splitlines()[-1]

    return reseal


async def mfa(backend: Backend, user: User, path: str, **body: Any) -> httpx.Response:
    headers = bearer(backend.token_of(user))
    return await backend.http.post(f"/auth/mfa/{path}", json=body, headers=headers)


async def enable(backend: Backend, user: User, clock: Clock) -> tuple[str, list[str]]:
    """Set up a second factor; return the secret and the recovery codes."""
    begun = await mfa(backend, user, "setup", password=PASSWORD)
    assert begun.status_code == 200, begun.text
    assert begun.headers["cache-control"] == "no-store"
    secret = begun.json()["secret"]
    done = await mfa(backend, user, "confirm", code=clock.next_code(secret))
    assert done.status_code == 200, done.text
    return secret, done.json()["recovery_codes"]


async def ask(backend: Backend, **second: str) -> httpx.Response:
    body = {"email": ALICE, "password": PASSWORD} | second
    return await backend.http.post("/auth/login", json=body)


async def test_setup_and_login(
    backend: Backend, alice: User, clock: Clock, environment: Environment
) -> None:
    other = await login(backend, ALICE)
    async with recording() as events:
        wrong = await mfa(backend, alice, "setup", password="not my password")
        (error,) = check_problem(wrong, 422, "proof-rejected")["errors"]
        assert error["field"] == "body.password"
        check_problem(await mfa(backend, alice, "confirm", code="123456"), 409, "second-factor-off")
        begun = (await mfa(backend, alice, "setup", password=PASSWORD)).json()
        secret = begun["secret"]
        parsed = pyotp.parse_uri(begun["otpauth_uri"])
        assert (parsed.secret, parsed.name) == (secret, ALICE)
        # It counts only once it is confirmed.
        assert (await ask(backend)).status_code == 200
        false = await mfa(backend, alice, "confirm", code="000000")
        check_problem(false, 422, "proof-rejected")
        done = await mfa(backend, alice, "confirm", code=clock.next_code(secret))
        codes = done.json()["recovery_codes"]
        assert len(set(codes)) == 10
        assert not await is_logged_in(backend, other)
        again = await mfa(backend, alice, "setup", password=PASSWORD)
        check_problem(again, 409, "second-factor-on")
        check_problem(await ask(backend), 401, "second-factor-required")
        check_problem(await ask_login(backend, ALICE, "wrong one"), 401, "wrong-credentials")
        code = clock.next_code(secret)
        assert (await ask(backend, otp=code)).status_code == 200
        check_problem(await ask(backend, otp=code), 401, "second-factor-rejected")
        form = {"username": ALICE, "password": PASSWORD, "otp": clock.next_code(secret)}
        assert (await backend.http.post("/auth/token", data=form)).status_code == 200
        # Of several concurrent logins with one code, only one succeeds.
        code = clock.next_code(secret)
        answers = await asyncio.gather(*(ask(backend, otp=code) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 401, 401]
    changes = [event for event in events if event.action is Action.MFA_CHANGE]
    assert [event.outcome for event in changes] == [Outcome.FAILURE, Outcome.SUCCESS] * 2
    kept = str(events) + str(
        await environment.query("SELECT * FROM second_factors, recovery_codes")
    )
    for text in (secret, code, *codes, codes[0].replace("-", "")):
        assert text not in kept


async def test_recovery_codes_are_single_use_and_renewable(
    backend: Backend, alice: User, clock: Clock
) -> None:
    secret, codes = await enable(backend, alice, clock)
    headers = bearer(backend.token_of(alice))

    async def left() -> int:
        state = (await backend.http.get("/auth/mfa", headers=headers)).json()
        assert state["enabled"] is True
        return int(state["recovery_codes_left"])

    assert await left() == 10
    written = codes[0].lower().replace("-", " ")
    assert (await ask(backend, recovery_code=written)).status_code == 200
    answers = await asyncio.gather(*(ask(backend, recovery_code=codes[1]) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401]
    for code in (codes[0], "x", "AAAA-AAAA-AAAA-AAAA", "' OR 1=1 --"):
        wrong = await ask(backend, recovery_code=code)
        check_problem(wrong, 401, "second-factor-rejected")
        await login_with(backend, clock, secret)
    assert await left() == 8
    other = await login(backend, ALICE, otp=clock.next_code(secret))
    renewed = await mfa(backend, alice, "recovery-codes", code=clock.next_code(secret))
    assert await left() == 10
    assert not await is_logged_in(backend, other)
    old = await ask(backend, recovery_code=codes[2])
    check_problem(old, 401, "second-factor-rejected")
    new = renewed.json()["recovery_codes"]
    assert (await ask(backend, recovery_code=new[0])).status_code == 200


async def login_with(backend: Backend, clock: Clock, secret: str) -> None:
    assert (await ask(backend, otp=clock.next_code(secret))).status_code == 200


async def test_concurrent_logins_on_two_instances_use_a_code_once(
    backend: Backend,
    alice: User,
    clock: Clock,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret, _ = await enable(backend, alice, clock)
    # Hashing would serialise the logins.
    monkeypatch.setattr(auth_passwords._context, "verify_and_update", lambda *_: (True, None))
    async with running(environment.settings(REDIS_CONSUMER_NAME="host-8003")) as other:
        for _ in range(10):
            code = clock.next_code(secret)
            answers = await asyncio.gather(*(ask(one, otp=code) for one in (backend, other)))
            assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_wrong_codes_lock_the_account(
    backend: Backend, alice: User, clock: Clock, environment: Environment
) -> None:
    secret, codes = await enable(backend, alice, clock)
    async with recording() as events:
        for code in ("000000", "111111"):
            check_problem(await ask(backend, otp=code), 401, "second-factor-rejected")
        await environment.query("UPDATE login_sources SET failures = 4")
        check_problem(await ask(backend, otp="222222"), 401, "second-factor-rejected")
        assert [event.action for event in events].count(Action.LOCKOUT) == 1
    right = clock.next_code(secret)
    for answer in (await ask(backend, otp=right), await ask(backend, recovery_code=codes[0])):
        check_problem(answer, 401, "wrong-credentials")
    await environment.query("UPDATE login_sources SET locked_until = now()")
    assert (await ask(backend, recovery_code=codes[0])).status_code == 200


async def test_attempts_of_a_session_are_limited(
    backend: Backend, alice: User, clock: Clock
) -> None:
    secret, _ = await enable(backend, alice, clock)
    async with recording() as events:
        for path, body, field in (
            ("recovery-codes", {"code": "22"}, "code"),
            ("disable", {"password": PASSWORD, "code": "111111"}, "code"),
            ("disable", {"password": PASSWORD, "recovery_code": "x"}, "recovery_code"),
            ("disable", {"password": "not my password", "code": "111111"}, "password"),
            ("recovery-codes", {"code": "22"}, "code"),
        ):
            answer = await mfa(backend, alice, path, **body)
            (error,) = check_problem(answer, 422, "proof-rejected")["errors"]
            assert error["field"] == f"body.{field}"
        assert [event.action for event in events].count(Action.LOCKOUT) == 1
    right = clock.next_code(secret)
    for path, body in (("disable", {"password": PASSWORD}), ("recovery-codes", {})):
        answer = await mfa(backend, alice, path, **body, code=right)
        check_problem(answer, 422, "proof-rejected")
    # An attacker with a stolen session cannot lock the owner out.
    assert (await ask(backend, otp=right)).status_code == 200


async def test_password_changes_do_not_reset_the_attempts(
    environment: Environment, clock: Clock
) -> None:
    async with running(environment.settings(RATE_LOGIN_PER_ACCOUNT="5/day")) as backend:
        alice = await backend.add_user(ALICE)
        admin = bearer(backend.token_of(await backend.add_user("admin@x.test", Role.ADMIN)))
        secret, _ = await enable(backend, alice, clock)

        async def failures() -> list[tuple[int, bool]]:
            query = "SELECT failures, locked_until > now() FROM login_sources ORDER BY source"
            return [(count, bool(locked)) for count, locked in await environment.query(query)]

        async def try_code(password: str) -> None:
            wrong = await ask(backend, password=password, otp="000000")
            check_problem(wrong, 401, "second-factor-rejected")

        for _ in range(2):
            await try_code(PASSWORD)
        new, newest = "quite other words in a row", "another staple for the horse"
        changed = await backend.http.post(
            "/auth/password/change",
            json={"current_password": PASSWORD, "new_password": new},
            headers=bearer(backend.token_of(alice)),
        )
        assert changed.status_code == 204
        # Of the network, and of all unknown sources.
        assert await failures() == [(2, False)] * 2
        for _ in range(3):
            await try_code(new)
        assert await failures() == [(5, True)] * 2
        path = f"/admin/users/{alice.id}"
        link = (await backend.http.post(f"{path}/reset-link", headers=admin)).json()
        body = {"token": link["token"], "password": newest}
        assert (await backend.http.post("/auth/password/reset", json=body)).status_code == 204
        assert await failures() == [(5, True)] * 2
        check_problem(await ask(backend, password=newest), 401, "wrong-credentials")
        assert (await backend.http.post(f"{path}/unlock", headers=admin)).status_code == 200
        right = await ask(backend, password=newest, otp=clock.next_code(secret))
        assert right.status_code == 200


async def test_removal_by_owner_or_administrator(
    backend: Backend, alice: User, clock: Clock, environment: Environment
) -> None:
    secret, _ = await enable(backend, alice, clock)
    for body in ({}, {"password": PASSWORD}, {"code": "1" * 6}, {"password": "", "code": ""}):
        check_problem(await mfa(backend, alice, "disable", **body), 422, "invalid-request")
    other = await login(backend, ALICE, otp=clock.next_code(secret))
    # A wrong password does not consume the code.
    code = clock.next_code(secret)
    wrong = await mfa(backend, alice, "disable", password="not my password", code=code)
    (error,) = check_problem(wrong, 422, "proof-rejected")["errors"]
    assert error["field"] == "body.password"
    done = await mfa(backend, alice, "disable", password=PASSWORD, code=code)
    assert done.status_code == 204
    assert not await is_logged_in(backend, other)
    assert (await ask(backend)).status_code == 200
    again = await mfa(backend, alice, "disable", password=PASSWORD, code=code)
    check_problem(again, 409, "second-factor-off")
    _, codes = await enable(backend, alice, clock)
    lost = await mfa(backend, alice, "disable", password=PASSWORD, recovery_code=codes[9])
    assert lost.status_code == 204
    secret, _ = await enable(backend, alice, clock)
    admin = await backend.add_user("admin@shield.test", Role.ADMIN)
    path = f"/admin/users/{alice.id}"
    headers = bearer(backend.token_of(admin))
    assert (await backend.http.get(path, headers=headers)).json()["second_factor"] is True
    tokens = (await ask(backend, otp=clock.next_code(secret))).json()
    async with recording() as events:
        removed = await backend.http.delete(f"{path}/second-factor", headers=headers)
    assert removed.status_code == 204
    assert [event.action for event in events] == [Action.MFA_CHANGE]
    assert not await is_logged_in(backend, tokens)
    assert (await ask(backend)).status_code == 200
    assert await environment.query("SELECT * FROM recovery_codes") == []


async def test_lost_key_leaves_the_recovery_codes(environment: Environment, clock: Clock) -> None:
    async with running(environment.settings(MFA_KEY="m" * 40)) as backend:
        alice = await backend.add_user(ALICE)
        secret, codes = await enable(backend, alice, clock)
    changed = {"MFA_KEY": "n" * 40, "MFA_PREVIOUS_KEYS": "m" * 40}
    async with running(environment.settings(**changed), healthy=False) as backend:
        await login_with(backend, clock, secret)
    # A used secret is re-encrypted, so that the old key may be removed.
    async with running(environment.settings(MFA_KEY="n" * 40), healthy=False) as backend:
        await login_with(backend, clock, secret)
    async with (
        running(environment.settings(MFA_KEY="l" * 40), healthy=False) as backend,
        recording() as events,
    ):
        for _ in range(6):
            lost = await ask(backend, otp=clock.next_code(secret))
            check_problem(lost, 503, "second-factor-unreadable")
        renewed = await mfa(backend, alice, "recovery-codes", code=clock.next_code(secret))
        check_problem(renewed, 503, "second-factor-unreadable")
        noted = [event for event in events if event.action is not Action.SETTINGS_CHANGE]
        assert [(event.action, event.outcome) for event in noted] == [
            *[(Action.LOGIN, Outcome.FAILURE)] * 6,
            (Action.MFA_CHANGE, Outcome.FAILURE),
        ]
        assert noted[0].details == {"reason": "second factor unreadable"}
        # The user is not at fault, so nothing is locked.
        assert (await ask(backend, recovery_code=codes[0])).status_code == 200


async def test_operator_re_encrypts_all_secrets(
    backend: Backend, alice: User, clock: Clock, operator: Operator, environment: Environment
) -> None:
    """From the key derived from JWT_SECRET to a separate one, and from that to another."""
    secret, _ = await enable(backend, alice, clock)
    assert await operator(MFA_PREVIOUS_KEYS="z" * 40) == (0, "sealed 1")
    assert await operator(MFA_KEY="m" * 40) == (0, "sealed 1")
    assert await operator(MFA_KEY="n" * 40) == (2, "sealed 0")
    assert await operator(MFA_KEY="n" * 40, MFA_PREVIOUS_KEYS="m" * 40) == (0, "sealed 1")
    unreadable = await ask(backend, otp=clock.next_code(secret))
    check_problem(unreadable, 503, "second-factor-unreadable")
    async with running(environment.settings(MFA_KEY="n" * 40), healthy=False) as other:
        await login_with(other, clock, secret)


async def test_re_encryption_continues_over_batches_and_keeps_what_is_current(
    backend: Backend,
    clock: Clock,
    operator: Operator,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(second_factors, "_BATCH", 2)
    for number in range(5):
        await enable(backend, await backend.add_user(f"user{number}@shield.test"), clock)
    assert await operator(MFA_KEY="m" * 40) == (0, "sealed 5")
    stored = "SELECT user_id, sealed_secret FROM second_factors ORDER BY user_id"
    before = await environment.query(stored)
    assert await operator(MFA_KEY="m" * 40) == (0, "sealed 5")
    assert await environment.query(stored) == before


async def test_second_factor_is_revealed_only_after_the_password(
    backend: Backend, alice: User, clock: Clock
) -> None:
    secret, codes = await enable(backend, alice, clock)
    code = clock.next_code(secret)
    async with recording() as events:
        for given in ({"otp": code}, {"recovery_code": codes[0]}):
            wrong = await ask_login(backend, ALICE, "not my password", **given)
            check_problem(wrong, 401, "wrong-credentials")
        check_problem(await ask(backend, otp=""), 401, "second-factor-required")
        check_problem(await ask(backend, otp="000000"), 401, "second-factor-rejected")
        appended = await ask_login(backend, ALICE, PASSWORD + code)
        check_problem(appended, 401, "wrong-credentials")
        # None of these attempts has consumed a code.
        assert (await ask(backend, otp=code)).status_code == 200
        assert (await ask(backend, recovery_code=codes[0])).status_code == 200
    password = {"reason": "wrong password"}
    assert [event.details for event in events if event.action is Action.LOGIN] == [
        password,
        password,
        {"reason": "second factor missing"},
        {"reason": "wrong second factor"},
        password,
        {"second_factor": "code"},
        {"second_factor": "recovery code"},
    ]
