"""Limits and retention of the agent's stored data, and how they are reported."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from src.models.role import Role
from src.repositories.conversation_storage import RETENTION_LOCK
from src.services.agent import retention as agent_retention
from tests.support.accounts import bearer
from tests.support.agent import run_input, user_says, whole_run
from tests.support.environment import Environment
from tests.support.samples import sample
from tests.support.scripted_gateway import scripted_gateway
from tests.support.server import Backend, running
from tests.support.waiting import until

LIMIT = 64 * 1024


@pytest.fixture
async def gateway_url() -> AsyncIterator[str]:
    async with scripted_gateway("An answer.") as url:
        yield url


@pytest.fixture
async def backend(environment: Environment, gateway_url: str) -> AsyncIterator[Backend]:
    async with running(environment.settings(LITELLM_URL=gateway_url)) as instance:
        yield instance


@pytest.fixture
async def token(backend: Backend) -> str:
    return backend.token_of(await backend.add_user("alice@shield.test", Role.CONTRIBUTOR))


async def refused(backend: Backend, token: str, body: dict[str, Any], status: int) -> str:
    """Return the slug of the problem that the run is refused with."""
    response = await backend.http.post("/agent", json=body, headers=bearer(token))
    assert response.status_code == status, response.text
    return str(response.json()["type"].rpartition(":")[2])


async def ids(environment: Environment, table: str) -> list[str]:
    return [row[0] for row in await environment.query(f"SELECT id FROM {table} ORDER BY id")]  # noqa: S608 - a table's name


async def grow_old(environment: Environment, thread_id: str) -> None:
    past = "now() - interval '100 days'"
    await environment.query(
        f"UPDATE agent_threads SET updated_at = {past} WHERE id = $1",  # noqa: S608 - ours
        thread_id,
    )
    await environment.query(
        f"UPDATE agent_runs SET started_at = {past}, ended_at = {past} WHERE thread_id = $1",  # noqa: S608 - ours
        thread_id,
    )


@asynccontextmanager
async def limited(
    environment: Environment, gateway_url: str, **settings: int
) -> AsyncIterator[tuple[Backend, str]]:
    """Start an instance with these limits; yield it with a user's token."""
    async with running(environment.settings(LITELLM_URL=gateway_url, **settings)) as backend:
        user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
        yield backend, backend.token_of(user)


class TestBytes:
    async def test_of_a_conversation_are_bounded_whatever_is_sent_to_it(
        self, environment: Environment, gateway_url: str
    ) -> None:
        async with limited(environment, gateway_url, AGENT_THREAD_MAX_BYTES=LIMIT) as (
            backend,
            token,
        ):
            body = run_input("x" * 30_000)
            await whole_run(backend.http, token, body)
            further = body | {"runId": "further", "messages": [user_says("x" * 40_000)]}
            before = await environment.rows()
            assert await refused(backend, token, further, 413) == "conversation-too-large"
            assert await environment.rows() == before
            # A repeated message is not stored twice.
            await whole_run(backend.http, token, body | {"runId": "again"})
            await whole_run(backend.http, token, run_input("x" * 40_000))

    async def test_of_a_user_are_bounded_until_conversations_are_deleted(
        self, environment: Environment, gateway_url: str
    ) -> None:
        async with limited(environment, gateway_url, AGENT_USER_MAX_BYTES=LIMIT) as (
            backend,
            token,
        ):
            other = backend.token_of(await backend.add_user("bob@shield.test", Role.CONTRIBUTOR))
            first = run_input("x" * 40_000)
            await whole_run(backend.http, token, first)
            second = run_input("x" * 30_000)
            assert await refused(backend, token, second, 429) == "too-much-kept"
            await whole_run(backend.http, other, second)
            path = f"/agent/threads/{first['threadId']}"
            assert (await backend.http.delete(path, headers=bearer(token))).status_code == 204
            await whole_run(backend.http, token, second)

    async def test_of_many_small_conversations_count_as_well(
        self, environment: Environment, gateway_url: str
    ) -> None:
        async with limited(environment, gateway_url, AGENT_USER_MAX_BYTES=LIMIT) as (
            backend,
            token,
        ):
            await environment.query(
                "INSERT INTO agent_threads (owner_id, id, workspace, title) "
                "SELECT users.id, n::text, 'default', '' FROM users, generate_series(1, 200) AS n"
            )
            await backend.services.agent.retention.retain_if_alone()
            assert await refused(backend, token, run_input(""), 429) == "too-much-kept"

    async def test_are_those_of_messages_and_logs_as_they_change(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        body = run_input("x" * 1000)
        await whole_run(backend.http, token, body)
        changed = [body["messages"][0] | {"content": "x" * 5000}]
        await whole_run(backend.http, token, body | {"runId": "again", "messages": changed})
        await until(lambda: not backend.services.agent.runs)
        ((held,),) = await environment.query("SELECT bytes FROM agent_threads")
        ((messages, rows),) = await environment.query(
            "SELECT sum(octet_length(body::text)), count(*) FROM agent_messages"
        )
        ((logs, runs),) = await environment.query(
            "SELECT sum(octet_length(events)), count(*) FROM agent_runs"
        )
        assert held == messages + logs + 512 * (rows + runs + 1)

    async def test_of_former_releases_are_counted_later_and_then_shown(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        await whole_run(backend.http, token, run_input("x" * 1000))
        await until(lambda: not backend.services.agent.runs)
        ((held,),) = await environment.query("SELECT bytes FROM agent_threads")
        await environment.query("UPDATE agent_threads SET bytes = NULL")
        await environment.query("UPDATE agent_messages SET size = NULL")
        retention, metrics = backend.services.agent.retention, backend.services.metrics
        await retention.measure()
        assert sample(metrics, "ag_ui_agent_kept_bytes") == 0
        await retention.retain_if_alone()
        await retention.measure()
        shown = [sample(metrics, f"ag_ui_agent_kept_{name}") for name in ("threads", "runs")]
        assert (shown, sample(metrics, "ag_ui_agent_kept_bytes")) == ([1, 1], held)


class TestRetention:
    async def test_lets_go_of_old_conversations_and_of_old_runs_in_the_others(
        self,
        backend: Backend,
        token: str,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("_THREADS", "_RUNS"):
            monkeypatch.setattr(agent_retention, name, 1)
        for number in range(3):
            body = run_input("Hello", threadId=f"old-{number}", runId=f"old-{number}")
            await whole_run(backend.http, token, body)
        for number in range(2):
            body = run_input("Hello", threadId="goes-on", runId=f"before-{number}")
            await whole_run(backend.http, token, body)
        await until(lambda: not backend.services.agent.runs)
        for thread in ("old-0", "old-1", "old-2", "goes-on"):
            await grow_old(environment, thread)
        await whole_run(backend.http, token, run_input("Hello", threadId="goes-on", runId="after"))
        await until(lambda: not backend.services.agent.runs)
        ((before,),) = await environment.query(
            "SELECT bytes FROM agent_threads WHERE id = 'goes-on'"
        )

        await backend.services.agent.retention.retain_if_alone()
        assert await ids(environment, "agent_threads") == ["goes-on"]
        assert await ids(environment, "agent_runs") == ["after"]
        left = await backend.http.get("/agent/threads/goes-on", headers=bearer(token))
        assert [one["role"] for one in left.json()["messages"]] == ["user", "assistant"] * 3
        ((after,),) = await environment.query("SELECT bytes FROM agent_threads")
        assert after < before
        query = "SELECT details FROM audit_log WHERE action = 'agent.retain'"
        await until(lambda: environment.query(query))
        ((details,),) = await environment.query(query)
        assert orjson.loads(details) == {"threads": 3, "runs": 2, "days": 90}

    async def test_keeps_what_a_run_is_at_work_on(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        await whole_run(backend.http, token, run_input("Hello", threadId="old"))
        await until(lambda: not backend.services.agent.runs)
        await grow_old(environment, "old")
        await environment.query("UPDATE agent_runs SET status = 'running', ended_at = NULL")
        await backend.services.agent.retention.retain_if_alone()
        assert await ids(environment, "agent_threads") == ["old"]

    async def test_is_the_work_of_one_instance_at_a_time_and_of_itself(
        self,
        backend: Backend,
        token: str,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await whole_run(backend.http, token, run_input("Hello", threadId="old"))
        await until(lambda: not backend.services.agent.runs)
        await grow_old(environment, "old")
        retention = backend.services.agent.retention
        database = backend.services.database
        async with database.alone(RETENTION_LOCK):
            await retention.retain_if_alone()
        assert await ids(environment, "agent_threads") == ["old"]

        monkeypatch.setattr(agent_retention.AgentRetention, "first_seconds", 0)
        settings = environment.settings(REDIS_CONSUMER_NAME="host-8003")
        async with running(settings) as other:
            await until(lambda: _is_empty(environment))
            await until(lambda: sample(other.services.metrics, "ag_ui_agent_kept_threads") == 0)

    async def test_waits_for_nobody(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        """A user starts a run in a conversation that is past its retention period."""
        await whole_run(backend.http, token, run_input("Hello", threadId="old"))
        await until(lambda: not backend.services.agent.runs)
        await grow_old(environment, "old")
        async with environment.database.transaction():
            await environment.query("SELECT 1 FROM agent_threads FOR UPDATE")
            async with asyncio.timeout(10):
                await backend.services.agent.retention.retain_if_alone()
        assert await ids(environment, "agent_threads") == ["old"]


async def _is_empty(environment: Environment) -> bool:
    return not await ids(environment, "agent_threads")
