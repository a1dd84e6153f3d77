"""Limits and retention of the agent's stored data, and how they are reported."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from src.models.permissions import Role
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
async def backend(
    environment: Environment, gateway_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[Backend]:
    """An instance; a test may parametrise it with limits."""
    limits = getattr(request, "param", {})
    async with running(environment.settings(LITELLM_URL=gateway_url, **limits)) as instance:
        yield instance


limited_conversations = pytest.mark.parametrize(
    "backend", [{"AGENT_THREAD_MAX_BYTES": LIMIT}], ids=["limit per conversation"], indirect=True
)
limited_users = pytest.mark.parametrize(
    "backend", [{"AGENT_USER_MAX_BYTES": LIMIT}], ids=["limit per user"], indirect=True
)


async def refused(backend: Backend, token: str, body: dict[str, Any], status: int) -> str:
    """Return the slug of the problem that the run is refused with."""
    response = await backend.http.post("/agent", json=body, headers=bearer(token))
    assert response.status_code == status, response.text
    return str(response.json()["type"].rpartition(":")[2])


async def ids(environment: Environment, table: str) -> list[str]:
    return [row[0] for row in await environment.query(f"SELECT id FROM {table} ORDER BY id")]  # noqa: S608 - a table's name


async def expire(environment: Environment, thread_id: str) -> None:
    past = "now() - interval '100 days'"
    await environment.query(
        f"UPDATE agent_threads SET updated_at = {past} WHERE id = $1",  # noqa: S608 - ours
        thread_id,
    )
    await environment.query(
        f"UPDATE agent_runs SET started_at = {past}, ended_at = {past} WHERE thread_id = $1",  # noqa: S608 - ours
        thread_id,
    )


class TestStorageLimits:
    @limited_conversations
    async def test_size_of_a_conversation_is_limited(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        body = run_input("x" * 30_000)
        await whole_run(backend.http, token, body)
        further = body | {"runId": "further", "messages": [user_says("x" * 40_000)]}
        before = await environment.rows()
        assert await refused(backend, token, further, 413) == "conversation-too-large"
        assert await environment.rows() == before
        # A repeated message is not stored twice.
        await whole_run(backend.http, token, body | {"runId": "again"})
        await whole_run(backend.http, token, run_input("x" * 40_000))

    @limited_users
    async def test_size_of_a_users_data_is_limited(self, backend: Backend, token: str) -> None:
        other = backend.token_of(await backend.add_user("bob@shield.test", Role.CONTRIBUTOR))
        first = run_input("x" * 40_000)
        await whole_run(backend.http, token, first)
        second = run_input("x" * 30_000)
        assert await refused(backend, token, second, 429) == "too-much-kept"
        await whole_run(backend.http, other, second)
        path = f"/agent/threads/{first['threadId']}"
        assert (await backend.http.delete(path, headers=bearer(token))).status_code == 204
        await whole_run(backend.http, token, second)

    @limited_users
    async def test_small_conversations_count_with_their_overhead(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        await environment.query(
            "INSERT INTO agent_threads (owner_id, id, workspace, title) "
            "SELECT users.id, n::text, 'default', '' FROM users, generate_series(1, 200) AS n"
        )
        await backend.services.agent.retention.retain_if_alone()
        assert await refused(backend, token, run_input(""), 429) == "too-much-kept"

    async def test_stored_size_follows_changes(
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

    async def test_size_of_older_data_is_computed_later(
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
    async def test_old_conversations_and_runs_are_deleted(
        self,
        backend: Backend,
        token: str,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("_THREADS_PER_BATCH", "_RUNS_PER_BATCH"):
            monkeypatch.setattr(agent_retention, name, 1)
        for number in range(3):
            body = run_input("Hello", threadId=f"old-{number}", runId=f"old-{number}")
            await whole_run(backend.http, token, body)
        for number in range(2):
            body = run_input("Hello", threadId="goes-on", runId=f"before-{number}")
            await whole_run(backend.http, token, body)
        await until(lambda: not backend.services.agent.runs)
        for thread in ("old-0", "old-1", "old-2", "goes-on"):
            await expire(environment, thread)
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

    async def test_conversation_with_active_run_is_kept(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        await whole_run(backend.http, token, run_input("Hello", threadId="old"))
        await until(lambda: not backend.services.agent.runs)
        await expire(environment, "old")
        await environment.query("UPDATE agent_runs SET status = 'running', ended_at = NULL")
        await backend.services.agent.retention.retain_if_alone()
        assert await ids(environment, "agent_threads") == ["old"]

    async def test_only_one_instance_deletes(
        self,
        backend: Backend,
        token: str,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await whole_run(backend.http, token, run_input("Hello", threadId="old"))
        await until(lambda: not backend.services.agent.runs)
        await expire(environment, "old")
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

    async def test_locked_rows_are_skipped(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        """A user starts a run in a conversation that is past its retention period."""
        await whole_run(backend.http, token, run_input("Hello", threadId="old"))
        await until(lambda: not backend.services.agent.runs)
        await expire(environment, "old")
        async with environment.database.transaction():
            await environment.query("SELECT 1 FROM agent_threads FOR UPDATE")
            async with asyncio.timeout(10):
                await backend.services.agent.retention.retain_if_alone()
        assert await ids(environment, "agent_threads") == ["old"]


async def _is_empty(environment: Environment) -> bool:
    return not await ids(environment, "agent_threads")
