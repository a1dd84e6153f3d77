"""Each instance tells the state of all."""

from typing import Any

import orjson
import pytest

from src import __version__
from src.models.permissions import Role
from src.models.user import User
from src.services.operations import instance_reporter
from tests.support.accounts import bearer
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import Backend, running, two_instances
from tests.support.sse import sse
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_reporter, "_EVERY_SECONDS", 0.1)


@pytest.fixture
async def admin(backend: Backend) -> User:
    return await backend.add_user("root@shield.test", Role.ADMIN)


async def operations(backend: Backend, admin: User) -> dict[str, Any]:
    answer = await backend.http.get("/admin/operations", headers=bearer(backend.token_of(admin)))
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


async def instances(backend: Backend, admin: User) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in (await operations(backend, admin))["instances"]}


async def test_each_instance_shows_all_until_they_stop(environment: Environment) -> None:
    async with two_instances(environment) as (one, two):
        admin = await one.add_user("admin@shield.test", Role.ADMIN)
        names = {one.settings.REDIS_CONSUMER_NAME, "host-8003"}
        for backend in (one, two):

            async def shows_both(backend: Backend = backend) -> bool:
                return set(await instances(backend, admin)) == names

            await until(shows_both)
        async with sse(two.http, token=two.token_of(admin)):

            async def shows_the_stream() -> bool:
                shown = (await instances(one, admin))["host-8003"]
                return (shown["open_streams"], shown["status"]) == (1, "healthy")

            await until(shows_the_stream)
        shown = (await instances(one, admin))["host-8003"]
        assert shown["version"] == __version__
        assert (shown["not_ready"], shown["problems"]) == (None, {})
        assert shown["resident_bytes"] > 1_000_000
    async with running(environment.settings()) as alone:
        await until(lambda: shows_only(alone, admin))


async def shows_only(backend: Backend, admin: User) -> bool:
    return set(await instances(backend, admin)) == {backend.settings.REDIS_CONSUMER_NAME}


async def test_problems_of_an_instance_are_those_of_its_health(environment: Environment) -> None:
    async with running(environment.settings()) as backend:
        admin = await backend.add_user("admin@shield.test", Role.ADMIN)
        await backend.services.agent.retention.stop()
        backend.services.agent.retention._stop.clear()

        async def shows_the_defect() -> bool:
            [shown] = (await instances(backend, admin)).values()
            return shown["status"] == "unhealthy" and set(shown["problems"]) == {"agent_retention"}

        await until(shows_the_defect)


async def test_reports_of_other_releases_and_old_ones_are_ignored(
    environment: Environment, backend: Backend, admin: User
) -> None:
    await until(lambda: shows_only(backend, admin))
    key = f"{environment.stream}:instances"
    [report] = (await instances(backend, admin)).values()
    old = report | {"name": "old", "reported_at": "2026-01-01T00:00:00Z"}
    for name, text in (("old", orjson.dumps(old)), ("odd", b"{}"), ("broken", b"\xff")):
        await environment.redis.hset(key, name, text)
    assert await shows_only(backend, admin)


async def test_gaps_are_listed_the_newest_first(
    environment: Environment, backend: Backend, admin: User
) -> None:
    for ms in (1, 5):
        await environment.query(
            "INSERT INTO stream_gaps (after_ms, after_seq, before_ms, before_seq, reason, entries) "
            "VALUES ($1::bigint, 0, $1::bigint + 1, 3, 'trimmed', 7)",
            ms,
        )
    report = await operations(backend, admin)
    assert [(gap["after"], gap["before"], gap["entries"]) for gap in report["gaps"]] == [
        ("5-0", "6-3", 7),
        ("1-0", "2-3", 7),
    ]
    assert report["stream"]["stream"] == environment.stream


async def test_only_administrators_see_it(backend: Backend) -> None:
    viewer = await backend.add_user("viewer@shield.test", Role.VIEWER)
    answer = await backend.http.get("/admin/operations", headers=bearer(backend.token_of(viewer)))
    check_problem(answer, 403, "not-permitted")
