"""Failed logins: growing lockouts only for the attacker, which responses do not reveal."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from src.config import Settings
from src.models.permissions import Role
from src.models.user import User
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.services.auth import devices as auth_devices
from src.services.auth import passwords as auth_passwords
from src.services.auth.devices import Devices
from tests.support.accounts import (
    TOO_LONG,
    ask_login,
    bearer,
    cookies_of,
    device_cookie_of,
    log_in_from,
    login,
)
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import PASSWORD, Backend, running
from tests.support.waiting import until

ALICE = "alice@shield.test"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[AuditEvent]:
    """The recorded audit events."""
    events: list[AuditEvent] = []
    record = AuditLogger.record

    async def note(audit: AuditLogger, event: AuditEvent) -> None:
        events.append(event)
        await record(audit, event)

    monkeypatch.setattr(AuditLogger, "record", note)
    return events


@pytest.fixture
async def alice(backend: Backend) -> User:
    return await backend.add_user(ALICE)


async def fail_logins(backend: Backend, times: int, email: str = ALICE) -> list[dict[str, Any]]:
    """Fail to log in; return the problem documents without their request ids."""
    bodies = []
    for _ in range(times):
        answer = await ask_login(backend, email, "not my password")
        body = check_problem(answer, 401, "wrong-credentials")
        del body["request_id"]
        bodies.append(body)
    return bodies


async def unlock_by_time(environment: Environment) -> None:
    await environment.query("UPDATE login_sources SET locked_until = now() - interval '1 second'")


async def counted(environment: Environment, kind: str) -> tuple[int, datetime | None]:
    """Return the failures of the only source of a kind, and the end of its lockout."""
    query = "SELECT failures, locked_until FROM login_sources WHERE source LIKE $1 || '%'"
    ((failures, until),) = await environment.query(query, kind)
    return failures, until


def checked_passwords(recorded: list[AuditEvent]) -> int:
    """Return how many wrong passwords were checked."""
    return [event.details.get("reason") for event in recorded].count("wrong password")


@pytest.mark.usefixtures("alice")
async def test_five_failures_lock_and_the_lockout_is_not_revealed(
    backend: Backend, environment: Environment, recorded: list[AuditEvent]
) -> None:
    before = await fail_logins(backend, 4)
    await login(backend, ALICE)
    # The success has reset the counter.
    assert await fail_logins(backend, 5) == [before[0]] * 5
    locked = check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
    del locked["request_id"]
    assert locked == before[0]
    (lockout,) = [e for e in recorded if e.action is Action.LOCKOUT]
    assert lockout.details["source"] == "network:127.0.0.0/24"
    assert recorded[-1].details == {"reason": "locked account"}
    # Failures during a lockout do not extend it.
    await fail_logins(backend, 2)
    failures, until = await counted(environment, "network")
    assert failures == 5
    assert until is not None
    assert timedelta(0) < until - datetime.now(UTC) <= timedelta(minutes=1)
    await unlock_by_time(environment)
    await fail_logins(backend, 1)
    _, until = await counted(environment, "network")
    assert until is not None
    assert timedelta(minutes=1) < until - datetime.now(UTC) <= timedelta(minutes=2)
    await unlock_by_time(environment)
    await login(backend, ALICE)
    assert await counted(environment, "network") == (0, None)


OWNERS, ELSEWHERE, ATTACKER = "192.0.2.10", "198.51.100.10", "203.0.113.66"


@pytest.mark.parametrize("role", Role)
async def test_owner_can_log_in_during_a_distributed_attack(
    environment: Environment, role: Role
) -> None:
    """Uses the default limits and requests through the proxy."""
    defaults = {
        name: Settings.model_fields[name].default
        for name in ("RATE_LOGIN_PER_ADDRESS", "RATE_LOGIN_PER_ACCOUNT")
    }
    async with running(environment.settings(**defaults)) as backend:
        await backend.add_user(ALICE, role)
        browser = device_cookie_of(await log_in_from(backend, OWNERS, ALICE))
        for n in range(60):
            await log_in_from(backend, f"203.0.{n}.66", ALICE, TOO_LONG)
        # Includes a network from which the owner logs in with other devices.
        for _ in range(12):
            await log_in_from(backend, ELSEWHERE, ALICE, TOO_LONG)
        known_network = await log_in_from(backend, "192.0.2.99", ALICE)
        known_browser = await log_in_from(backend, ELSEWHERE, ALICE, cookies=browser)
        assert (known_network.status_code, known_browser.status_code) == (200, 200)
        stranger = await log_in_from(backend, "203.0.200.1", ALICE)
        check_problem(stranger, 401, "wrong-credentials")


async def test_attack_from_one_network_does_not_lock_others(
    environment: Environment, recorded: list[AuditEvent]
) -> None:
    """A day of guesses from one network leaves part of the shared quota to other networks."""
    values = {"RATE_LOGIN_PER_ACCOUNT": Settings.model_fields["RATE_LOGIN_PER_ACCOUNT"].default}
    async with running(environment.settings(**values)) as backend:
        await backend.add_user(ALICE)
        for hour in range(24):
            for _ in range(5):
                await log_in_from(backend, ATTACKER, ALICE, TOO_LONG)
            assert checked_passwords(recorded) == 5 + hour
            await environment.query(
                "UPDATE login_sources SET failed_at = failed_at - interval '1 hour',"
                " locked_until = locked_until - interval '1 hour'"
            )
        assert (await log_in_from(backend, ELSEWHERE, ALICE)).status_code == 200


@pytest.mark.parametrize(
    ("network", "other"),
    [
        (["203.0.113.1", "203.0.113.254", "::ffff:203.0.113.7"], "203.0.112.1"),
        (["2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8::2"], "2001:db8:0:1::1"),
    ],
)
async def test_five_attempts_per_network(
    backend: Backend, recorded: list[AuditEvent], network: list[str], other: str
) -> None:
    await backend.add_user(ALICE)
    for n in range(9):
        await log_in_from(backend, network[n % 3], ALICE, TOO_LONG)
    assert checked_passwords(recorded) == 5
    await log_in_from(backend, other, ALICE, TOO_LONG)
    assert checked_passwords(recorded) == 6


async def test_shared_quota_of_unknown_networks(
    environment: Environment, recorded: list[AuditEvent]
) -> None:
    settings = [
        environment.settings(RATE_LOGIN_PER_ACCOUNT="6/hour", REDIS_CONSUMER_NAME=name)
        for name in ("host-8002", "host-8003")
    ]
    async with running(settings[0]) as one, running(settings[1]) as other:
        await one.add_user(ALICE)
        await asyncio.gather(
            *(log_in_from((one, other)[n % 2], f"203.0.{n}.1", ALICE, TOO_LONG) for n in range(30))
        )
        assert checked_passwords(recorded) == 6
        # One attempt is available again after a sixth of an hour.
        failures, until = await counted(environment, "unknown")
        assert failures == 6
        assert until is not None
        assert timedelta(0) < until - datetime.now(UTC) <= timedelta(minutes=10)
        await unlock_by_time(environment)
        for n in range(30, 33):
            await log_in_from(one, f"203.0.{n}.1", ALICE, TOO_LONG)
        assert checked_passwords(recorded) == 7


@pytest.mark.usefixtures("alice")
class TestDevices:
    async def test_attributes_of_the_cookie(self, backend: Backend) -> None:
        answer = await log_in_from(backend, OWNERS, ALICE)
        ((name, cookie),) = cookies_of(answer).items()
        assert name.startswith("__Host-ag_ui_device_")
        assert cookie["secure"]
        assert cookie["httponly"]
        assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("strict", "/", "")
        assert int(cookie["max-age"]) == 180 * 24 * 3600
        assert ALICE not in cookie.value
        form = {"username": ALICE, "password": PASSWORD}
        assert device_cookie_of(await backend.http.post("/auth/token", data=form))
        assert not device_cookie_of(await ask_login(backend, ALICE, "not my password"))

    async def test_stolen_device_cookie_has_five_attempts(
        self, backend: Backend, environment: Environment, recorded: list[AuditEvent]
    ) -> None:
        stolen = device_cookie_of(await log_in_from(backend, OWNERS, ALICE))
        for n in range(8):
            await log_in_from(backend, f"203.0.{n}.1", ALICE, TOO_LONG, cookies=stolen)
        assert checked_passwords(recorded) == 5
        failures, until = await counted(environment, "device")
        assert failures == 5
        assert until is not None
        # The owner has another device and another network.
        assert (await log_in_from(backend, OWNERS, ALICE)).status_code == 200

    @pytest.mark.parametrize("case", ["forged", "another account", "another key", "old"])
    async def test_invalid_device_cookie_has_no_effect(
        self, backend: Backend, environment: Environment, monkeypatch: pytest.MonkeyPatch, case: str
    ) -> None:
        ((name, value),) = device_cookie_of(await log_in_from(backend, OWNERS, ALICE)).items()
        if case == "forged":
            value = value[:-8] + "AAAAAAA="
        elif case == "another account":
            await backend.add_user("mallory@shield.test")
            (value,) = device_cookie_of(
                await log_in_from(backend, OWNERS, "mallory@shield.test")
            ).values()
        elif case == "another key":
            other = Devices(
                environment.settings(JWT_SECRET="another-secret-that-is-long-enough-too")
            )
            ((hashed,),) = await environment.query("SELECT password_hash FROM users")
            value = other.issue(ALICE, hashed)
        else:
            monkeypatch.setattr(auth_devices, "LIFETIME", timedelta(seconds=-100))
        await environment.query(
            "INSERT INTO login_sources SELECT id, 'unknown networks', 9, now(), now() + '1 hour'"
            " FROM users"
        )
        answer = await log_in_from(backend, ELSEWHERE, ALICE, cookies={name: value})
        check_problem(answer, 401, "wrong-credentials")

    @pytest.mark.parametrize("way", ["change", "reset", "admin"])
    async def test_new_password_revokes_device_cookies(
        self, backend: Backend, environment: Environment, way: str
    ) -> None:
        first = await log_in_from(backend, OWNERS, ALICE)
        stolen, new = device_cookie_of(first), "quite other words in a row"
        admin = await backend.add_user("admin@shield.test", Role.ADMIN)
        ((alice,),) = await environment.query("SELECT id FROM users WHERE email = $1", ALICE)
        path, headers = f"/admin/users/{alice}", bearer(backend.token_of(admin))
        if way == "change":
            changed = await backend.http.post(
                "/auth/password/change",
                json={"current_password": PASSWORD, "new_password": new},
                headers=bearer(first.json()["access_token"]),
            )
            renewed = device_cookie_of(changed)
        else:
            link = await backend.http.post(f"{path}/reset-link", headers=headers)
            body = {"token": link.json()["token"], "password": new}
            changed = await backend.http.post("/auth/password/reset", json=body)
        assert changed.status_code == 204
        await environment.query("DELETE FROM login_sources")
        await environment.query(
            "INSERT INTO login_sources VALUES ($1, 'unknown networks', 9, now(), now() + '1 hour')",
            alice,
        )
        answer = await log_in_from(backend, ELSEWHERE, ALICE, new, cookies=stolen)
        check_problem(answer, 401, "wrong-credentials")
        if way == "change":
            answer = await log_in_from(backend, ELSEWHERE, ALICE, new, cookies=renewed)
            assert answer.status_code == 200

    async def test_device_has_its_own_rate_limit(self, environment: Environment) -> None:
        async with running(environment.settings(RATE_LOGIN_PER_ADDRESS="3/hour")) as backend:
            browser = device_cookie_of(await log_in_from(backend, OWNERS, ALICE))
            for n in range(5):
                await log_in_from(backend, OWNERS, f"{n}@shield.test", TOO_LONG)
            limited = await log_in_from(backend, OWNERS, ALICE)
            check_problem(limited, 429, "too-many-requests")
            # The browser has a limit of its own, which all devices of the account share.
            answers = [
                (await log_in_from(backend, OWNERS, ALICE, cookies=browser)).status_code
                for _ in range(4)
            ]
            assert answers == [200, 200, 200, 429]

    async def test_browser_keeps_five_device_cookies(self, backend: Backend) -> None:
        jar: dict[str, str] = {}
        for n in range(7):
            await backend.add_user(f"{n}@shield.test")
            answer = await log_in_from(backend, OWNERS, f"{n}@shield.test", cookies=jar)
            jar = {name: value for name, value in (jar | device_cookie_of(answer)).items() if value}
        assert len(jar) == 5


@pytest.mark.parametrize("way", ["reset", "unlock"])
async def test_unlocked_owner_can_log_in_from_a_new_network(
    environment: Environment, way: str
) -> None:
    async with running(environment.settings(RATE_LOGIN_PER_ACCOUNT="2/day")) as backend:
        alice = await backend.add_user(ALICE)
        admin = bearer(backend.token_of(await backend.add_user("admin@x.test", Role.ADMIN)))
        path = f"/admin/users/{alice.id}"

        async def guess(times: int) -> None:
            for n in range(times):
                await log_in_from(backend, f"203.0.{n}.1", ALICE, TOO_LONG)

        await guess(3)
        check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
        shown = (await backend.http.get(path, headers=admin)).json()
        assert shown["locked_until"]
        if way == "unlock":
            assert (await backend.http.post(f"{path}/unlock", headers=admin)).status_code == 200
        else:
            link = await backend.http.post(f"{path}/reset-link", headers=admin)
            body = {"token": link.json()["token"], "password": PASSWORD}
            answer = await backend.http.post("/auth/password/reset", json=body)
            assert answer.status_code == 204
            # Meanwhile the attack continues.
            await guess(3)
        await login(backend, ALICE)


async def test_old_sources_are_deleted(
    backend: Backend, environment: Environment, alice: User
) -> None:
    for name, age in (
        ("network:192.0.2.0/24", "89 days"),
        ("network:192.0.3.0/24", "91 days"),
        ("network:192.0.4.0/24", "2 days"),
        ("session:x", "1 hour"),
    ):
        logs_in = age.endswith("1 days") or age.startswith("89")
        column = "logged_in_at" if logs_in else "failed_at"
        await environment.query(
            f"INSERT INTO login_sources (user_id, source, {column})"  # noqa: S608 - a column
            f" VALUES ($1, $2, now() - interval '{age}')",
            alice.id,
            name,
        )
    await backend.revocation_watcher._purge()
    left = await environment.query("SELECT source FROM login_sources ORDER BY source")
    assert [row["source"] for row in left] == ["network:192.0.2.0/24", "session:x"]


async def test_last_fifty_networks_are_kept(backend: Backend, environment: Environment) -> None:
    await backend.add_user(ALICE)
    await environment.query(
        "INSERT INTO login_sources (user_id, source, logged_in_at)"
        " SELECT id, 'network:10.0.' || n || '.0/24', now() - n * interval '1 hour'"
        " FROM users, generate_series(1, 60) AS n"
    )
    await log_in_from(backend, OWNERS, ALICE)
    rows = await environment.query("SELECT source FROM login_sources ORDER BY logged_in_at DESC")
    names = [row["source"] for row in rows]
    assert len(names) == 50
    assert names[0] == "network:192.0.2.0/24"
    assert names[-1] == "network:10.0.49.0/24"


async def test_sessions_continue_while_the_account_is_locked(backend: Backend, alice: User) -> None:
    await fail_logins(backend, 5)
    headers = bearer(backend.token_of(alice))
    assert (await backend.http.get("/auth/me", headers=headers)).status_code == 200


async def test_concurrent_attempts_on_two_instances_are_limited(
    environment: Environment, recorded: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hashing would serialise the guesses.
    monkeypatch.setattr(auth_passwords._context, "verify_and_update", lambda *_: (False, None))
    settings = [
        environment.settings(DATABASE_POOL_SIZE=10, REDIS_CONSUMER_NAME=name)
        for name in ("host-8002", "host-8003")
    ]
    async with running(settings[0]) as one, running(settings[1]) as other:
        await one.add_user(ALICE)
        guesses = (ask_login((one, other)[n % 2], ALICE, f"guess {n}") for n in range(20))
        answers = await asyncio.gather(*guesses)
    assert [answer.status_code for answer in answers] == [401] * 20
    reasons = [event.details["reason"] for event in recorded if event.action is Action.LOGIN]
    assert (reasons.count("wrong password"), reasons.count("locked account")) == (5, 15)
    assert (await counted(environment, "network"))[0] == 5


@pytest.mark.usefixtures("alice")
async def test_all_failures_have_equal_cost_and_response(
    backend: Backend, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    verify, dummy = auth_passwords._context.verify_and_update, auth_passwords._context.dummy_verify

    def note_verify(*given: Any) -> Any:
        hashed.append("known")
        return verify(*given)

    def note_dummy() -> None:
        hashed.append("unknown")
        dummy()

    monkeypatch.setattr(auth_passwords._context, "verify_and_update", note_verify)
    monkeypatch.setattr(auth_passwords._context, "dummy_verify", note_dummy)
    # The last one looks like Alice's address: its first letter is Cyrillic.
    bodies = []
    for email in (ALICE, "nobody@shield.test", "no address", "\u0430lice@shield.test"):
        bodies += await fail_logins(backend, 1, email)
    await environment.query("UPDATE login_sources SET locked_until = now() + interval '1 minute'")
    bodies += await fail_logins(backend, 1)
    await environment.query("UPDATE users SET active = false")
    bodies += await fail_logins(backend, 1)
    assert len(hashed) == 6
    assert all(body == bodies[0] for body in bodies)


@pytest.mark.usefixtures("alice")
async def test_excess_logins_are_told_to_retry(
    backend: Backend, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    verify = auth_passwords._context.verify_and_update

    def wait_and_verify(*given: Any) -> Any:
        assert gate.wait(10)
        return verify(*given)

    monkeypatch.setattr(auth_passwords._context, "verify_and_update", wait_and_verify)
    monkeypatch.setattr(auth_passwords, "_MAX_QUEUED", 3)
    first = [asyncio.create_task(ask_login(backend, ALICE)) for _ in range(3)]
    await until(lambda: auth_passwords._hash_queue._queued == 3)
    answer = await ask_login(backend, ALICE)
    check_problem(answer, 503, "busy")
    assert int(answer.headers["retry-after"]) > 0
    gate.set()
    assert [one.status_code for one in await asyncio.gather(*first)] == [200] * 3
    assert (await counted(environment, "network"))[0] == 0


@pytest.mark.usefixtures("alice")
async def test_audit_has_accounts_and_no_other_input(
    backend: Backend, recorded: list[AuditEvent]
) -> None:
    await fail_logins(backend, 1)
    await fail_logins(backend, 1, "hunter2-in-the-wrong-field")
    await login(backend, ALICE)
    known, unknown, success = recorded
    assert (known.actor, known.details) == (ALICE, {"reason": "wrong password"})
    assert unknown.actor is None
    assert unknown.details == {"reason": "unknown account"}
    assert success.target is not None
    assert success.target.startswith("session:")
    assert "hunter2" not in repr(recorded)
