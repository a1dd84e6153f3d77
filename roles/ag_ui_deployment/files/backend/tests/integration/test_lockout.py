"""Failed logins: an account is locked for longer and longer, and nobody outside can tell."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from src.models.user import User
from src.services import passwords
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.services.lockout import wait_after
from tests.integration.test_api_endpoints import check_problem
from tests.support.accounts import ask_login, bearer, login
from tests.support.server import Backend, running
from tests.support.waiting import until
from tests.support.world import World

ALICE = "alice@shield.test"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[AuditEvent]:
    """What goes to the audit log."""
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


async def fail(backend: Backend, times: int, email: str = ALICE) -> list[dict[str, Any]]:
    """The problems, without their request ids."""
    bodies = []
    for _ in range(times):
        answer = await ask_login(backend, email, "not my password")
        body = check_problem(answer, 401, "wrong-credentials")
        del body["request_id"]
        bodies.append(body)
    return bodies


async def unlock_by_time(world: World) -> None:
    await world.query("UPDATE users SET locked_until = now() - interval '1 second'")


def test_the_wait_doubles_up_to_an_hour() -> None:
    waits = [wait_after(failures) for failures in range(14)]
    assert waits[:5] == [None] * 5
    minutes = [wait.total_seconds() / 60 for wait in waits[5:] if wait is not None]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert wait_after(10**6) == timedelta(hours=1)


@pytest.mark.usefixtures("alice")
async def test_five_failures_lock_and_the_right_password_then_looks_like_a_wrong_one(
    backend: Backend, world: World, recorded: list[AuditEvent]
) -> None:
    before = await fail(backend, 4)
    await login(backend, ALICE)
    # The success has set the count back.
    assert await fail(backend, 5) == [before[0]] * 5
    locked = check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
    del locked["request_id"]
    assert locked == before[0]
    assert [e.action for e in recorded].count(Action.LOCKOUT) == 1
    assert recorded[-1].details == {"reason": "locked account"}
    # Failures while it is locked do not make it longer.
    await fail(backend, 2)
    ((failures, until),) = await world.query("SELECT failed_logins, locked_until FROM users")
    assert failures == 5
    assert timedelta(0) < until - datetime.now(UTC) <= timedelta(minutes=1)
    await unlock_by_time(world)
    await fail(backend, 1)
    ((until,),) = await world.query("SELECT locked_until FROM users")
    assert timedelta(minutes=1) < until - datetime.now(UTC) <= timedelta(minutes=2)
    await unlock_by_time(world)
    await login(backend, ALICE)
    ((failures, until),) = await world.query("SELECT failed_logins, locked_until FROM users")
    assert (failures, until) == (0, None)


async def test_open_sessions_go_on_while_an_account_is_locked(
    backend: Backend, alice: User
) -> None:
    await fail(backend, 5)
    headers = bearer(backend.token_of(alice))
    assert (await backend.http.get("/auth/me", headers=headers)).status_code == 200


async def test_of_many_guesses_at_once_on_two_instances_five_are_judged(
    world: World, recorded: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hashing would bring the guesses one after the other.
    monkeypatch.setattr(passwords._context, "verify_and_update", lambda *_: (False, None))
    settings = [
        world.settings(DATABASE_POOL_SIZE=20, REDIS_CONSUMER_NAME=name)
        for name in ("host-8002", "host-8003")
    ]
    async with running(settings[0]) as one, running(settings[1]) as other:
        await one.add_user(ALICE)
        guesses = (ask_login((one, other)[n % 2], ALICE, f"guess {n}") for n in range(40))
        answers = await asyncio.gather(*guesses)
    assert [answer.status_code for answer in answers] == [401] * 40
    reasons = [event.details["reason"] for event in recorded if event.action is Action.LOGIN]
    assert (reasons.count("wrong password"), reasons.count("locked account")) == (5, 35)
    assert await world.query("SELECT failed_logins FROM users") == [(5,)]


@pytest.mark.usefixtures("alice")
async def test_all_failures_cost_the_same_work_and_say_the_same(
    backend: Backend, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    verify, dummy = passwords._context.verify_and_update, passwords._context.dummy_verify

    def note_verify(*given: Any) -> Any:
        hashed.append("known")
        return verify(*given)

    def note_dummy() -> None:
        hashed.append("unknown")
        dummy()

    monkeypatch.setattr(passwords._context, "verify_and_update", note_verify)
    monkeypatch.setattr(passwords._context, "dummy_verify", note_dummy)
    # The last one looks like Alice's: its first letter is Cyrillic.
    bodies = []
    for email in (ALICE, "nobody@shield.test", "no address", "\u0430lice@shield.test"):
        bodies += await fail(backend, 1, email)
    await world.query("UPDATE users SET locked_until = now() + interval '1 minute'")
    bodies += await fail(backend, 1)
    await world.query("UPDATE users SET locked_until = NULL, active = false")
    bodies += await fail(backend, 1)
    assert len(hashed) == 6
    assert all(body == bodies[0] for body in bodies)


@pytest.mark.usefixtures("alice")
async def test_more_at_once_than_can_be_checked_are_told_to_come_again(
    backend: Backend, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    verify = passwords._context.verify_and_update

    def wait_and_verify(*given: Any) -> Any:
        assert gate.wait(10)
        return verify(*given)

    monkeypatch.setattr(passwords._context, "verify_and_update", wait_and_verify)
    monkeypatch.setattr(passwords, "_MOST_WAITING", 3)
    first = [asyncio.create_task(ask_login(backend, ALICE)) for _ in range(3)]
    await until(lambda: passwords._hashing._waiting == 3)
    answer = await ask_login(backend, ALICE)
    check_problem(answer, 503, "busy")
    assert int(answer.headers["retry-after"]) > 0
    gate.set()
    assert [one.status_code for one in await asyncio.gather(*first)] == [200] * 3
    ((failures,),) = await world.query("SELECT failed_logins FROM users")
    assert failures == 0


@pytest.mark.usefixtures("alice")
async def test_the_audit_tells_accounts_and_never_what_else_was_typed(
    backend: Backend, recorded: list[AuditEvent]
) -> None:
    await fail(backend, 1)
    await fail(backend, 1, "hunter2-in-the-wrong-field")
    await login(backend, ALICE)
    known, unknown, success = recorded
    assert (known.actor, known.details) == (ALICE, {"reason": "wrong password"})
    assert unknown.actor is None
    assert unknown.details == {"reason": "unknown account"}
    assert success.target is not None
    assert success.target.startswith("session:")
    assert "hunter2" not in repr(recorded)
