"""Health shows what works, readiness whether to send traffic.

Neither blocks on a hanging server.
"""

import asyncio
import re
import time
from typing import Any
from unittest.mock import Mock

import pytest

from src import __version__
from src.services.operations import health_service
from tests.support.builders import settings_of, shield_event
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running
from tests.support.waiting import until


async def shows(backend: Backend, status: str, *down: str) -> bool:
    """Whether health has this status because of these checks."""
    body = await backend.health()
    not_ok = {name for name, check in body["checks"].items() if check["status"] != "ok"}
    return body["status"] == status and not_ok >= set(down) and bool(not_ok) == bool(down)


async def test_healthy_report(backend: Backend) -> None:
    await until(lambda: shows(backend, "healthy"))
    response = await backend.http.get("/health")
    body: dict[str, Any] = response.json()
    assert response.status_code == 200
    assert body["service"] == "shield-ag-ui-backend"
    assert body["version"] == __version__
    assert body["redis_connected"] is True
    assert set(body["checks"]) == {
        "redis",
        "database",
        "consumer",
        "tail",
        "announcer",
        "gateway",
        "orchestrator",
        "access",
        "agent_runs",
        "run_tail",
        "run_sweeper",
        "agent_retention",
        "token_budget",
        "audit",
        "audit_keeper",
        "audit_retention",
        "garbage",
        "instance_reporter",
        "settings",
        "tool_call_retention",
    }
    assert all(set(check) == {"status", "detail"} for check in body["checks"].values())


async def test_liveness_and_readiness(backend: Backend) -> None:
    assert (await backend.http.get("/health/live")).status_code == 200
    assert (await backend.http.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("fault", ["refuse", "freeze"])
async def test_redis_outage_and_recovery(
    environment: Environment, redis_proxy: TcpProxy, fault: str
) -> None:
    async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
        await until(lambda: shows(backend, "healthy"))
        await redis_proxy.fail(fault)
        began = time.monotonic()
        await until(lambda: shows(backend, "degraded", "redis"))
        assert time.monotonic() - began < 5
        body = await backend.health()
        assert body["redis_connected"] is False
        assert (await backend.http.get("/health")).status_code == 200
        assert (await backend.http.get("/health/ready")).status_code == 200
        await redis_proxy.accept()
        began = time.monotonic()
        await until(lambda: shows(backend, "healthy"), 10)


@pytest.mark.parametrize("fault", ["refuse", "freeze"])
async def test_postgresql_outage_and_recovery(
    environment: Environment, database_proxy: TcpProxy, fault: str
) -> None:
    async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
        await until(lambda: shows(backend, "healthy"))
        await database_proxy.fail(fault)
        began = time.monotonic()
        await until(lambda: shows(backend, "degraded", "database"))
        assert time.monotonic() - began < 5
        assert (await backend.http.get("/health")).status_code == 200
        assert (await backend.http.get("/health/ready")).status_code == 200
        await database_proxy.accept()
        await until(lambda: shows(backend, "healthy"), 15)


async def detail_of(backend: Backend, check: str) -> str:
    return str((await backend.health())["checks"][check]["detail"])


async def test_redis_refusing_writes_is_reported(
    environment: Environment, backend: Backend
) -> None:
    await until(lambda: shows(backend, "healthy"))
    async with environment.redis_refusing_writes():
        await until(lambda: shows(backend, "degraded", "redis"))
        body = await backend.health()
        assert body["redis_connected"] is True
        assert body["checks"]["consumer"]["status"] == body["checks"]["tail"]["status"] == "ok"
        detail = body["checks"]["redis"]["detail"]
        assert re.match(
            r"refuses writes: its memory limit \(maxmemory\) is reached, for \d+ s: ", detail
        )
        assert "nobody can publish" in detail
    await until(lambda: shows(backend, "healthy"))


async def test_redis_outage_is_explained(environment: Environment, redis_proxy: TcpProxy) -> None:
    async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
        await redis_proxy.refuse()
        await until(lambda: shows(backend, "degraded", "redis", "consumer", "tail"))
        redis = await detail_of(backend, "redis")
        assert re.match(r"cannot be reached, for \d+ s: no new events arrive; ", redis)
        assert "REDIS_URL" in redis
        consumer = await detail_of(backend, "consumer")
        waiting = r"waiting for Redis, which cannot be reached, for \d+ s: "
        assert re.match(waiting + "events wait", consumer)
        tail = await detail_of(backend, "tail")
        assert re.match(waiting + "open streams get nothing new", tail)


async def test_postgresql_outage_is_explained(
    environment: Environment, database_proxy: TcpProxy
) -> None:
    async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
        await database_proxy.refuse()
        await environment.publish(shield_event())
        await until(lambda: shows(backend, "degraded", "database", "consumer"))
        database = await detail_of(backend, "database")
        assert re.match(r"cannot be reached, for \d+ s: no logins, ", database)
        assert "DATABASE_URL" in database
        consumer = await detail_of(backend, "consumer")
        assert re.match(
            r"waiting for PostgreSQL, which cannot be reached, for \d+ s: events wait", consumer
        )


async def test_lost_entries_are_reported_without_degrading(
    environment: Environment, database_proxy: TcpProxy
) -> None:
    """The service works again.

    An unhealthy status could block the deployment that fixes the cause.
    """
    async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
        await database_proxy.refuse()
        await environment.publish(shield_event())
        await until(lambda: backend.services.consumer.task.status == "waiting for PostgreSQL")
        await environment.publish(*(shield_event() for _ in range(7)))
        await environment.trim(0)
        await database_proxy.accept()
        await until(lambda: shows(backend, "healthy"), 15)
        pattern = (
            r"consuming; \d+ s ago 7 entries were lost: Redis trimmed them before they were read"
        )
        await until(lambda: consumer_detail_matches(backend, pattern))


async def consumer_detail_matches(backend: Backend, pattern: str) -> bool:
    return re.match(pattern, await detail_of(backend, "consumer")) is not None


async def test_start_without_redis_and_postgresql() -> None:
    """The instance starts degraded, responds, and can be stopped."""
    async with running(settings_of(SHUTDOWN_GRACE_SECONDS=2), healthy=False) as backend:
        await until(lambda: shows(backend, "degraded", "redis", "database", "consumer", "tail"))
        assert (await backend.http.get("/health/live")).status_code == 200
        assert (await backend.http.get("/")).status_code == 200


async def test_report_contains_no_secrets() -> None:
    settings = settings_of(
        DATABASE_URL="postgresql://shield:hunter2@127.0.0.1:1/shield",
        REDIS_URL="redis://:hunter2@127.0.0.1:1/0",
        SHUTDOWN_GRACE_SECONDS=2,
    )
    async with running(settings, healthy=False) as backend:
        await until(lambda: shows(backend, "degraded", "redis", "database"))
        assert "hunter2" not in (await backend.http.get("/health")).text


async def test_failed_task_is_unhealthy(backend: Backend) -> None:
    task = backend.services.events.tailer._task
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: shows(backend, "unhealthy", "tail"))
    assert (await backend.http.get("/health")).status_code == 503
    backend.services.events.tailer._task = None


@pytest.mark.parametrize(
    "check", ["access", "audit_keeper", "audit_retention", "garbage", "settings"]
)
async def test_failed_background_task_is_reported(backend: Backend, check: str) -> None:
    loop = backend.services.tasks[check]
    assert loop._task is not None
    loop._task.cancel()
    await asyncio.gather(loop._task, return_exceptions=True)
    await until(lambda: shows(backend, "unhealthy", check))
    loop._task = None


async def test_concurrent_requests_share_a_slow_check(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests during a hanging check share its one result, however long it takes."""
    # It makes reports too; the last one is cached for a second.
    await backend.services.operations.instances.stop()
    now = time.monotonic() + 60
    clock = Mock(monotonic=lambda: now)
    asked = 0
    ping = backend.services.database.ping

    async def hanging() -> None:
        nonlocal asked, now
        asked += 1
        now += 60
        await ping()

    monkeypatch.setattr(health_service, "time", clock)
    monkeypatch.setattr(backend.services.database, "ping", hanging)
    await asyncio.gather(*(backend.services.operations.health.health() for _ in range(10)))
    assert asked == 1


async def test_checks_run_once_per_second(backend: Backend) -> None:
    asked = 0
    ping = backend.services.database.ping

    async def counted() -> None:
        nonlocal asked
        asked += 1
        await ping()

    backend.services.database.ping = counted  # type: ignore[method-assign]
    began = time.monotonic()
    await asyncio.gather(*(backend.health() for _ in range(50)))
    assert asked <= 1 + int(time.monotonic() - began)


async def test_not_ready_without_the_schema(environment: Environment) -> None:
    await environment.query("DELETE FROM alembic_version")
    async with running(environment.settings(), healthy=False) as backend:
        body = check_problem(await backend.http.get("/health/ready"), 503, "not-ready")
        assert "src.cli migrate" in body["detail"]
        await environment.query("INSERT INTO alembic_version VALUES ('9999_of_a_later_release')")
        assert (await backend.http.get("/health/ready")).status_code == 200
