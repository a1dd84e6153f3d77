"""The admin API of the stream; replay and discarding of dead letters."""

import asyncio
from typing import Any
from unittest.mock import patch

import httpx
import orjson
import pytest
from sqlalchemy.exc import InvalidRequestError

from src.models.permissions import Role
from src.models.stream import LetterState
from src.models.user import User
from src.repositories import dead_letters as letter_rows
from tests.support.accounts import bearer
from tests.support.builders import fields_of, shield_event
from tests.support.environment import GROUP, Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running
from tests.support.waiting import until

LETTERS = "/admin/stream/dead-letters"


@pytest.fixture
async def admin(backend: Backend) -> User:
    return await backend.add_user("admin@shield.test", Role.ADMIN)


async def ask(
    backend: Backend, user: User, path: str, method: str = "GET", **query: Any
) -> httpx.Response:
    headers = bearer(backend.token_of(user))
    return await backend.http.request(method, path, params=query, headers=headers)


async def close(backend: Backend, user: User, letter: object, how: str) -> httpx.Response:
    return await ask(backend, user, f"{LETTERS}/{letter}/{how}", "POST")


async def recorded(environment: Environment) -> list[tuple[str, str, str]]:
    rows = await environment.query("SELECT action, outcome, target FROM audit_log ORDER BY seq")
    return [tuple(row) for row in rows if row[0].startswith("dead_letter")]


async def test_stream_status_matches_redis(
    environment: Environment, backend: Backend, admin: User
) -> None:
    ids = await environment.publish(shield_event(), shield_event(), {b"type": b""})
    await until(environment.settled)
    await environment.read_as("dead-host", 1)
    (last,) = await environment.publish(shield_event())
    await until(lambda: environment.has_stored([*ids[:2], last]))
    await until(environment.settled)
    body = (await ask(backend, admin, "/admin/stream")).json()
    (consumer, *_) = body["group"].pop("consumers")
    assert body == {
        "stream": environment.stream,
        "length": 4,
        "entries_added": 4,
        "first_id": str(ids[0]),
        "last_id": str(last),
        "group": {"name": GROUP, "lag": 0, "pending": 0, "last_delivered_id": str(last)},
        "open_dead_letters": 1,
    }
    assert consumer["pending"] == 0
    assert consumer["idle_ms"] >= 0


async def test_pending_entries_per_consumer(
    environment: Environment, backend: Backend, admin: User
) -> None:
    """Two entries are pending for a dead host, one for another host."""
    await until(environment.settled)
    await environment.redis.xgroup_create(environment.stream, "other", id="0", mkstream=True)
    group = patch.object(backend.services.consumer.overview, "_group", "other")
    await environment.publish(*(shield_event() for _ in range(4)))
    for consumer, count in (("dead-host", 2), ("other-host", 1)):
        await environment.redis.xreadgroup(
            "other", consumer, {environment.stream: ">"}, count=count
        )
    with group:
        shown = (await ask(backend, admin, "/admin/stream")).json()["group"]
    assert (shown["lag"], shown["pending"]) == (1, 3)
    holding = {one["name"]: one["pending"] for one in shown["consumers"]}
    assert holding == {"dead-host": 2, "other-host": 1}


async def test_dead_letter_is_replayed_unchanged(
    environment: Environment, backend: Backend, admin: User
) -> None:
    poison = fields_of(shield_event()) | {b"type": b"\xff\x00", b"\xfe": b"1"}
    (bad,) = await environment.publish(poison)
    await until(environment.dead_letters)
    page = (await ask(backend, admin, LETTERS)).json()
    (letter,) = page["items"]
    assert letter["id"] == str(bad)
    assert letter["reason"] == "type: is not UTF-8"
    assert "event_id" in orjson.loads(letter["fields"])
    assert letter["closed_at"] is None
    answers = await asyncio.gather(*(close(backend, admin, bad, "replay") for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    for answer in answers:
        if answer.status_code == 409:
            check_problem(answer, 409, "dead-letter-closed")
    (done,) = (answer.json() for answer in answers if answer.status_code == 200)
    assert (done["closed_how"], done["closed_by"]) == ("replayed", "admin@shield.test")
    entries: Any = await environment.redis.xrange(environment.stream)
    assert [entry[1] for entry in entries] == [poison, poison]
    assert entries[1][0].decode() == done["replayed_as"]
    # It is still unreadable, and becomes a dead letter again.
    await until(lambda: has_letters(environment, 2))
    open_ones = (await ask(backend, admin, LETTERS)).json()["items"]
    assert [one["id"] for one in open_ones] == [done["replayed_as"]]
    assert sorted(await recorded(environment)) == [
        *[("dead_letter.replay", "failure", f"dead_letter:{bad}")] * 3,
        ("dead_letter.replay", "success", f"dead_letter:{bad}"),
    ]


async def has_letters(environment: Environment, count: int) -> bool:
    return len(await environment.dead_letters()) == count


async def test_truncated_dead_letter_can_only_be_discarded(
    environment: Environment, backend: Backend, admin: User
) -> None:
    (bad,) = await environment.publish({b"type": b"", b"data": b"x" * 100_000})
    await until(environment.dead_letters)
    body = check_problem(await close(backend, admin, bad, "replay"), 409, "dead-letter-incomplete")
    assert "discard" in body["detail"]
    (letter,) = (await ask(backend, admin, LETTERS)).json()["items"]
    assert len(letter["fields"]) == 2000
    assert (await close(backend, admin, bad, "discard")).json()["closed_how"] == "discarded"
    check_problem(await close(backend, admin, bad, "replay"), 409, "dead-letter-closed")
    assert await environment.redis.xlen(environment.stream) == 1
    assert [row[:2] for row in await recorded(environment)] == [
        ("dead_letter.replay", "failure"),
        ("dead_letter.discard", "success"),
        ("dead_letter.replay", "failure"),
    ]


async def test_pagination_and_states(
    environment: Environment, backend: Backend, admin: User
) -> None:
    ids = [str(one) for one in await environment.publish(*[{b"type": b""}] * 5)]
    await until(lambda: has_letters(environment, 5))
    await close(backend, admin, ids[2], "discard")
    first = (await ask(backend, admin, LETTERS, limit=3)).json()
    assert [one["id"] for one in first["items"]] == [ids[4], ids[3], ids[1]]
    assert (await ask(backend, admin, LETTERS, limit=3, cursor="")).json() == first
    rest = (await ask(backend, admin, LETTERS, limit=3, cursor=first["next_cursor"])).json()
    assert [one["id"] for one in rest["items"]] == [ids[0]]
    assert rest["next_cursor"] is None
    # Clients of earlier releases use these names.
    by_old_names = await ask(backend, admin, LETTERS, limit=3, before=first["next_before"])
    assert by_old_names.json() == rest
    for cursor in ("x", "1", "1-x", "1" * 20 + "-0"):
        check_problem(await ask(backend, admin, LETTERS, cursor=cursor), 400, "bad-cursor")
    closed = (await ask(backend, admin, LETTERS, state="closed")).json()["items"]
    assert [one["id"] for one in closed] == [ids[2]]
    everything = (await ask(backend, admin, LETTERS, state="all")).json()["items"]
    assert [one["id"] for one in everything] == ids[::-1]
    far = "9" * 19
    assert (await ask(backend, admin, LETTERS, cursor=f"{far}-{far}")).json()["items"]


async def test_invalid_parameters_are_reported(backend: Backend, admin: User) -> None:
    for letter in ("1-1", f"{'9' * 19}-0"):
        for how in ("replay", "discard"):
            check_problem(await close(backend, admin, letter, how), 404, "dead-letter-not-found")
    check_problem(await close(backend, admin, "x", "replay"), 422, "invalid-request")
    for name, value in (("limit", 0), ("state", "lost"), ("before", "x")):
        answer = await ask(backend, admin, LETTERS, "GET", **{name: value})
        body = check_problem(answer, 422, "invalid-request")
        assert [one["field"] for one in body["errors"]] == [f"query.{name}"]


async def test_other_roles_are_refused(backend: Backend) -> None:
    viewer = await backend.add_user("viewer@shield.test")
    for method, path in (
        ("GET", "/admin/stream"),
        ("GET", LETTERS),
        ("POST", f"{LETTERS}/1-1/replay"),
        ("POST", f"{LETTERS}/1-1/discard"),
        ("GET", "/admin/config"),
    ):
        check_problem(await ask(backend, viewer, path, method), 403, "not-permitted")


async def test_replay_without_redis_closes_nothing(
    environment: Environment, redis_proxy: TcpProxy
) -> None:
    async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
        admin = await backend.add_user("admin@shield.test", Role.ADMIN)
        (bad,) = await environment.publish({b"type": b""})
        await until(environment.dead_letters)
        await redis_proxy.refuse()
        answer = await close(backend, admin, bad, "replay")
        check_problem(answer, 503, "stream-unavailable")
        assert answer.headers["retry-after"]
        check_problem(await ask(backend, admin, "/admin/stream"), 503, "stream-unavailable")
        assert len((await ask(backend, admin, LETTERS)).json()["items"]) == 1
        await redis_proxy.accept()
        assert await recorded(environment) == [
            ("dead_letter.replay", "failure", f"dead_letter:{bad}")
        ]


async def test_failed_replay_is_recorded_and_stays_open(
    environment: Environment, backend: Backend, admin: User
) -> None:
    (bad,) = await environment.publish({b"type": b""})
    await until(environment.dead_letters)
    await environment.query("ALTER TABLE dead_letters ADD CHECK (closed_at IS NULL)")
    assert (await close(backend, admin, bad, "replay")).status_code == 500
    assert await recorded(environment) == [("dead_letter.replay", "failure", f"dead_letter:{bad}")]
    assert len((await ask(backend, admin, LETTERS)).json()["items"]) == 1


async def test_only_the_shown_part_of_a_dead_letter_is_read(
    environment: Environment, backend: Backend, admin: User
) -> None:
    (bad,) = await environment.publish({b"type": b"", b"data": "ä€😀".encode() * 9000})
    await until(environment.dead_letters)
    async with backend.services.database.transaction() as session:
        ((row, beginning),) = await letter_rows.page(session, LetterState.OPEN, None, 1, 8000)
        assert len(beginning) == 8000
        with pytest.raises(InvalidRequestError, match="raiseload"):
            assert row.fields
    (shown,) = (await ask(backend, admin, LETTERS)).json()["items"]
    assert shown["id"] == str(bad)
    assert len(shown["fields"]) == 2000
    assert "\ufffd" not in shown["fields"]
