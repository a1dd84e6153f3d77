"""Model tokens: counted by user, day and model, with a daily limit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from src.models.permissions import Role
from src.models.user import User
from src.services.agent.token_budget import TokenBudget
from src.services.gateway.chat_stream import Usage
from src.utils.database import Database
from tests.support.accounts import bearer
from tests.support.agent import cancel, checked, run_input, running_agent, whole_run
from tests.support.environment import Environment
from tests.support.proxy import TcpProxy
from tests.support.scripted import DRIPS, ScriptedServer, answer, frames, tool_result
from tests.support.scripted_gateway import ENDLESS, scripted_gateway
from tests.support.server import Backend, running
from tests.support.waiting import until

CALL, CHAT = "/mcp-rest/tools/call", "/v1/chat/completions"
STOP = '{"choices":[{"delta":{},"finish_reason":"stop"}]}'
USAGE = '{"choices":[],"usage":{"prompt_tokens":70,"completion_tokens":40}}'
CALLS = '{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"health_check"}}]}}]}'
MAX_SECONDS = 24 * 3600


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        server.answers(CHAT, frames(STOP, USAGE))
        server.answers(CALL, tool_result({}))
        yield server


@asynccontextmanager
async def with_budget(
    environment: Environment, gateway_url: str, per_day: int
) -> AsyncIterator[tuple[Backend, User, str]]:
    """Start an instance; yield it with a user and their token."""
    settings = environment.settings(LITELLM_URL=gateway_url, AGENT_TOKENS_PER_DAY=per_day)
    async with running(settings) as backend:
        user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
        yield backend, user, backend.token_of(user)


async def kept(environment: Environment) -> list[tuple[Any, ...]]:
    rows = await environment.query(
        "SELECT owner_id, model, input_tokens, output_tokens FROM agent_token_usage"
        " WHERE day = (now() AT TIME ZONE 'UTC')::date ORDER BY model"
    )
    return [tuple(row) for row in rows]


async def test_usage_is_summed_over_runs(environment: Environment, gateway: ScriptedServer) -> None:
    async with with_budget(environment, gateway.url, 0) as (backend, user, token):
        for _ in range(3):
            events = await whole_run(backend.http, token, run_input("Hello"))
            assert events[-1]["type"] == "RUN_FINISHED"
        await until(lambda: _usage_is(environment, [(user.id, "shield-agent", 210, 120)]))


async def test_daily_limit_of_a_user(environment: Environment, gateway: ScriptedServer) -> None:
    async with with_budget(environment, gateway.url, 200) as (backend, _, token):
        for _ in range(2):
            await whole_run(backend.http, token, run_input("Hello"))
        body = run_input("Hello")
        response = await backend.http.post("/agent", json=body, headers=bearer(token))
        assert response.status_code == 429
        assert response.json()["type"].endswith(":tokens-spent")
        assert 0 < int(response.headers["retry-after"]) <= MAX_SECONDS
        assert (
            await environment.query("SELECT 1 FROM agent_runs WHERE id = $1", body["runId"]) == []
        )
        other = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        await whole_run(backend.http, backend.token_of(other), run_input("Hello"))
        # The next day.
        await environment.query("UPDATE agent_token_usage SET day = day - 1")
        await whole_run(backend.http, token, body)


async def test_exhausted_budget_ends_the_run_before_further_tools(
    environment: Environment, gateway: ScriptedServer
) -> None:
    gateway.answers(CHAT, frames(CALLS, STOP, USAGE))
    async with with_budget(environment, gateway.url, 200) as (backend, user, token):
        events = await whole_run(backend.http, token, run_input("Hello"))
        checked(events, complete=True)
        assert events[-1]["code"] == "tokens_spent"
        assert gateway.asked.count(CHAT) == 2
        assert gateway.asked.count(CALL) == 1
        assert await kept(environment) == [(user.id, "shield-agent", 140, 80)]


async def test_usage_of_an_interrupted_response_is_estimated(environment: Environment) -> None:
    async with (
        scripted_gateway("x" * 4000) as url,
        with_budget(environment, url, 500) as (backend, user, token),
    ):
        body = run_input(ENDLESS + "y" * 400)
        async with running_agent(backend.http, token, body) as stream:
            await stream.until(lambda it: len(it.events) > 2)
            await cancel(backend, token, body)
            await stream.until_ended()
        await until(lambda: kept(environment))
        ((owner, _, asked, answered),) = await kept(environment)
        assert owner == user.id
        assert (asked > 100, answered) == (True, 1000)
        refused = await backend.http.post("/agent", json=run_input("Hi"), headers=bearer(token))
        assert refused.status_code == 429


async def test_usage_of_an_unstarted_response_is_estimated(
    environment: Environment, gateway: ScriptedServer
) -> None:
    async with with_budget(environment, gateway.url, 50) as (backend, user, token):
        gateway.answers(CHAT, DRIPS)
        body = run_input("y" * 400)
        async with running_agent(backend.http, token, body) as stream:
            await until(lambda: CHAT in gateway.asked)
            await cancel(backend, token, body)
            await stream.until_ended()
        await until(lambda: kept(environment))
        ((owner, _, asked, answered),) = await kept(environment)
        assert (owner, asked > 100, answered) == (user.id, True, 0)
        refused = await backend.http.post("/agent", json=run_input("Hi"), headers=bearer(token))
        assert refused.json()["type"].endswith(":tokens-spent")


async def test_refused_requests_use_no_tokens(
    environment: Environment, gateway: ScriptedServer
) -> None:
    refusal = {"error": {"message": "no", "type": "auth_error", "code": "401"}}
    gateway.answers(CHAT, answer(401, refusal))
    async with with_budget(environment, gateway.url, 50) as (backend, _, token):
        for _ in range(2):
            events = await whole_run(backend.http, token, run_input("y" * 400))
            assert events[-1]["code"] == "gateway_refused"


async def test_usage_is_stored_once_after_an_outage(
    environment: Environment, database_proxy: TcpProxy, gateway: ScriptedServer
) -> None:
    async with with_budget(environment, gateway.url, 0) as (_, user, _):
        database = Database(environment.settings(DATABASE_URL=database_proxy.url))
        budget = TokenBudget(database, 100)
        budget.start()
        await database_proxy.refuse()
        budget.record(user.id, "one", Usage(60, 0))
        await until(lambda: budget.status == "waiting for PostgreSQL")
        budget.record(user.id, "one", Usage(0, 30))
        budget.record(user.id, "two", Usage(10, 1))
        assert not await budget.is_exhausted(user.id)
        await database_proxy.accept()
        expected = [(user.id, "one", 60, 30), (user.id, "two", 10, 1)]
        await until(lambda: _usage_is(environment, expected), 20)
        assert await budget.is_exhausted(user.id)
        budget.record(user.id, "two", Usage(0, 1))
        await budget.stop()
        await database.close()
        assert await kept(environment) == [(user.id, "one", 60, 30), (user.id, "two", 10, 2)]


async def test_usage_beyond_the_retention_period_is_deleted(
    environment: Environment, gateway: ScriptedServer
) -> None:
    async with with_budget(environment, gateway.url, 0) as (backend, user, _):
        await environment.query(
            "INSERT INTO agent_token_usage SELECT $1, (now() AT TIME ZONE 'UTC')::date - n, 'm', 1, 1"
            " FROM unnest(ARRAY[0, 90, 91]) AS n",
            user.id,
        )
        await backend.services.agent.retention.retain_if_alone()
        rows = await environment.query(
            "SELECT (now() AT TIME ZONE 'UTC')::date - day FROM agent_token_usage ORDER BY day"
        )
        assert [row[0] for row in rows] == [90, 0]


async def _usage_is(environment: Environment, expected: list[tuple[Any, ...]]) -> bool:
    return await kept(environment) == expected
