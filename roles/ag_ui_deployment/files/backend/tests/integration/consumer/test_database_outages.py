"""Temporary errors of PostgreSQL are retried; only permanent ones create dead letters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import literal, select
from sqlalchemy.exc import DBAPIError

from src.services.consumer.event_store import EventStore
from src.services.operations.migration import migrate
from src.utils.database import Database, is_bad_data, is_outage
from tests.support.accounts import ask_login, bearer
from tests.support.builders import shield_event
from tests.support.consumer import Consumer, consuming
from tests.support.environment import Environment
from tests.support.server import Backend, running
from tests.support.waiting import until

WAITING = "waiting for PostgreSQL"


async def waits_because(consumer: Consumer, words: str) -> None:
    await until(lambda: consumer.status == WAITING)
    assert consumer.why is not None
    assert words in consumer.why


async def nothing_is_lost(environment: Environment, consumer: Consumer, ids: list[Any]) -> None:
    await until(environment.settled, 20)
    assert consumer.status == "consuming"
    assert not consumer.failed
    assert await environment.stored() == ids
    assert await environment.dead_letters() == {}


@asynccontextmanager
async def refusing(environment: Environment, sqlstate: str) -> AsyncIterator[None]:
    """PostgreSQL refuses each new event with an error of this class."""
    await environment.query(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{sqlstate}'; END $$"
    )
    await environment.query(
        "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    yield
    await environment.query("DROP TRIGGER refuse ON events")


@pytest.mark.parametrize(
    ("sqlstate", "words"),
    [
        ("53100", "disk is full"),
        ("53200", "no memory"),
        ("53300", "no connection"),
        ("40P01", "in the way"),
        ("40001", "in the way"),
        ("25006", "read-only"),
        ("57014", "too long"),
        ("57P03", "starting or stopping"),
        ("42501", "not permit"),
        ("42P01", "migrations"),
        ("XX000", "error (InternalServerError)"),
    ],
)
async def test_server_errors_are_retried(
    environment: Environment, sqlstate: str, words: str
) -> None:
    async with consuming(environment.settings()) as consumer:
        await until(lambda: consumer.status == "consuming")
        async with refusing(environment, sqlstate):
            ids = await environment.publish(*(shield_event() for _ in range(3)))
            await waits_because(consumer, words)
            assert await environment.pending() == ids
        await nothing_is_lost(environment, consumer, ids)


@pytest.mark.parametrize("sqlstate", ["22P05", "22021", "23514"])
async def test_invalid_values_become_dead_letters(environment: Environment, sqlstate: str) -> None:
    async with consuming(environment.settings()) as consumer, refusing(environment, sqlstate):
        ids = await environment.publish(*(shield_event() for _ in range(3)))
        await until(environment.settled)
        assert sorted(await environment.dead_letters()) == ids
        assert consumer.status == "consuming"


async def test_deadlock_is_retried(environment: Environment) -> None:
    """Another transaction locks two jobs in the opposite order to the consumer."""
    await environment.query(
        "INSERT INTO jobs (id, status, created_at, updated_at) "
        "SELECT name, 'queued', now(), now() FROM unnest(ARRAY['a', 'b']) AS name"
    )
    other = await asyncpg.connect(environment.owner_url)
    try:
        # The consumer checks for deadlocks long before the other session does, so it is the one
        # that is aborted.
        await other.execute("SET deadlock_timeout = '60s'")
        async with consuming(environment.settings()) as consumer:
            async with other.transaction():
                await other.execute("UPDATE jobs SET kind = 'b' WHERE id = 'b'")
                ids = await environment.publish(shield_event(job="a"), shield_event(job="b"))
                await until(lambda: waits_for_a_lock(environment))
                await other.execute("UPDATE jobs SET kind = 'a' WHERE id = 'a'")
            await nothing_is_lost(environment, consumer, ids)
        rows = await environment.query("SELECT id, status, kind FROM jobs ORDER BY id")
        assert [tuple(row) for row in rows] == [("a", "running", "a"), ("b", "running", "b")]
    finally:
        await other.close()


async def waits_for_a_lock(environment: Environment) -> bool:
    """Whether the consumer has locked one job and waits for the other."""
    rows = await environment.query(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND application_name = 'host-8002'"
    )
    return bool(rows)


@pytest.fixture
async def limited(environment: Environment) -> AsyncIterator[tuple[str, str]]:
    """Create a role with the consumer's rights and no ownership; yield it with its database URL."""
    role = f"limited_{uuid4().hex}"
    await environment.query(f"CREATE ROLE {role} LOGIN PASSWORD 'limited'")
    await environment.query(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    parts = urlsplit(environment.database_url)
    address = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"{role}:limited@{address}"))
    yield role, url
    await environment.query(f"DROP OWNED BY {role}")
    await environment.query(f"DROP ROLE {role}")


async def test_connection_limit_is_retried(
    environment: Environment, limited: tuple[str, str]
) -> None:
    role, url = limited
    async with consuming(environment.settings(DATABASE_URL=url)) as consumer:
        ids = await environment.publish(shield_event())
        await until(environment.settled)
        await environment.query(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        await environment.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role
        )
        ids += await environment.publish(*(shield_event() for _ in range(3)))
        await waits_because(consumer, "connection")
        assert await environment.pending() == ids[1:]
        await environment.query(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        await nothing_is_lost(environment, consumer, ids)


async def test_connection_limit_at_the_start_is_retried(
    environment: Environment, limited: tuple[str, str]
) -> None:
    role, url = limited
    await environment.query(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    await environment.make_group()
    ids = await environment.publish(shield_event())
    async with consuming(environment.settings(DATABASE_URL=url)) as consumer:
        await waits_because(consumer, "connection")
        assert await environment.pending() == []
        await environment.query(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        await nothing_is_lost(environment, consumer, ids)


async def test_unencodable_value_is_bad_data(
    environment: Environment,
) -> None:
    """The driver then raises its own error, similar to that of a lost connection."""
    database = Database(environment.settings())
    event = shield_event("a\ud800b")
    stored = await EventStore(database).store([event, shield_event()])
    await database.close()
    assert stored.events == 1
    assert [poison.id for poison in stored.poison] == [event.id]


async def test_too_many_parameters_are_no_outage(environment: Environment) -> None:
    database = Database(environment.settings())
    try:
        with pytest.raises(DBAPIError) as caught:
            async with database.transaction() as session:
                await session.execute(select(literal(0).in_(range(40_000))))
    finally:
        await database.close()
    assert not is_outage(caught.value)
    assert is_bad_data(caught.value)


async def test_missing_rights_are_an_outage_reported_by_health(
    environment: Environment,
) -> None:
    """As during a change of the tables' owner: requests and the consumer wait for its end."""
    role = urlsplit(environment.database_url).username
    async with running(environment.settings()) as backend:
        user = await backend.add_user("alice@shield.test")
        headers = bearer(backend.token_of(user))
        assert (await backend.http.get("/api/jobs", headers=headers)).status_code == 200
        assert (await backend.health())["status"] == "healthy"

        await environment.query(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        for answer in (
            await backend.http.get("/api/jobs", headers=headers),
            await ask_login(backend, "alice@shield.test"),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"].endswith(":database-unavailable")
        await until(lambda: database_is(backend, "down", "audit_log, ", " jobs, ", " users"))

        await give_rights(environment, role)
        await until(lambda: database_is(backend, "ok"))
        assert (await backend.http.get("/api/jobs", headers=headers)).status_code == 200
        await environment.query(f"REVOKE DELETE ON submissions FROM {role}")
        await until(lambda: database_is(backend, "down", " use submissions: "))
        assert (await backend.health())["status"] == "degraded"
        await give_rights(environment, role)
        await until(lambda: database_is(backend, "ok"))


async def database_is(backend: Backend, status: str, *words: str) -> bool:
    check = (await backend.health())["checks"]["database"]
    return check["status"] == status and all(word in check["detail"] for word in words)


async def give_rights(environment: Environment, role: str | None) -> None:
    database = Database(environment.settings(DATABASE_URL=environment.owner_url))
    await migrate(database, role)
    await database.close()
