"""Models, tools and clients that exceed the limits of the agent."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from src.models.agent_input import RunInput
from src.models.permissions import Role
from src.repositories import conversations
from src.services.agent.loop import AgentLoop
from src.services.agent.toolbox import RESULT_MAX_BYTES
from src.services.runs import ended_logs
from src.services.runs.registry import RunKey, read_logs
from tests.support.accounts import bearer
from tests.support.agent import checked, run_input, user_says, whole_run
from tests.support.environment import Environment
from tests.support.scripted import ScriptedServer, answer, frames, tool_result
from tests.support.server import Backend, running
from tests.support.waiting import until

LIST, CALL, CHAT = "/mcp-rest/tools/list", "/mcp-rest/tools/call", "/v1/chat/completions"
STOP = '{"choices":[{"delta":{},"finish_reason":"stop"}]}'


def calls(count: int) -> str:
    """Return a frame in which a model calls this many tools."""
    pieces = [{"index": n, "function": {"name": "health_check"}} for n in range(count)]
    return json.dumps({"choices": [{"delta": {"tool_calls": pieces}}]})


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        server.answers(LIST, answer(200, {"tools": []}))
        server.answers(CHAT, frames(STOP))
        yield server


@pytest.fixture
async def backend(environment: Environment, gateway: ScriptedServer) -> AsyncIterator[Backend]:
    async with running(environment.settings(LITELLM_URL=gateway.url)) as instance:
        yield instance


class TestToolCalls:
    async def test_calls_of_one_response_are_limited(
        self, backend: Backend, token: str, gateway: ScriptedServer, environment: Environment
    ) -> None:
        gateway.answers(CHAT, frames(calls(10_000), STOP))
        events = await whole_run(backend.http, token, run_input("Hello"))
        checked(events, complete=True)
        assert events[-1]["code"] == "too_many_calls"
        assert CALL not in gateway.asked
        rows = await environment.query("SELECT status, error FROM agent_runs")
        assert [tuple(row) for row in rows] == [("failed", "too_many_calls")]

    async def test_calls_of_one_run_are_limited(
        self, environment: Environment, gateway: ScriptedServer
    ) -> None:
        gateway.answers(CHAT, frames(calls(2), STOP), frames(calls(3), STOP), frames(STOP))
        gateway.answers(CALL, tool_result({}))
        settings = environment.settings(LITELLM_URL=gateway.url, AGENT_MAX_TOOL_CALLS=3)
        async with running(settings) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            events = await whole_run(backend.http, backend.token_of(user), run_input("Hello"))
        _, client = checked(events, complete=True)
        assert client.outcome == "success"
        assert gateway.asked.count(CALL) == 3
        refusals = ["as many tools as it may" in text for text in client.results().values()]
        assert refusals == [False] * 3 + [True] * 2

    async def test_calls_count_towards_the_rate_limit(
        self, environment: Environment, gateway: ScriptedServer
    ) -> None:
        gateway.answers(CHAT, frames(calls(6), STOP), frames(STOP))
        gateway.answers(CALL, tool_result({}))
        settings = environment.settings(LITELLM_URL=gateway.url, RATE_API_PER_USER="5/hour")
        async with running(settings) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            token = backend.token_of(user)
            events = await whole_run(backend.http, token, run_input("Hello"))
            _, client = checked(events, complete=True)
            assert client.outcome == "success"
            # The first call is that of the run itself.
            assert gateway.asked.count(CALL) == 4
            refusals = ["too many requests" in text for text in client.results().values()]
            assert refusals == [False] * 4 + [True] * 2
            response = await backend.http.get("/agent/threads", headers=bearer(token))
            assert response.status_code == 429


class TestToolResults:
    async def test_long_results_are_truncated(
        self, backend: Backend, token: str, gateway: ScriptedServer
    ) -> None:
        whole = {"text": "quoted: " + '\\"\u20ac' * 100_000}
        gateway.answers(CALL, tool_result(whole))
        gateway.answers(CHAT, frames(calls(1), STOP), frames(STOP))
        body = run_input("Hello")
        events = await whole_run(backend.http, token, body)
        _, client = checked(events, complete=True)
        assert client.outcome == "success"
        (content,) = client.results().values()
        assert len(content.encode()) <= RESULT_MAX_BYTES
        truncated = json.loads(content)
        assert truncated["bytes"] == len(orjson.dumps(whole))
        assert truncated["beginning"].startswith('{"text":"quoted: ')
        assert "too long" in truncated["truncated"]

        gateway.answers(CALL, tool_result({"text": "x" * 60_000}))
        gateway.answers(CHAT, frames(calls(1), STOP), frames(STOP))
        events = await whole_run(backend.http, token, body | {"runId": "another"})
        (event,) = [event for event in events if event["type"] == "TOOL_CALL_RESULT"]
        assert json.loads(event["content"]) == {"text": "x" * 60_000}


class TestBodies:
    async def test_agent_requests_have_a_higher_body_limit(
        self, environment: Environment, gateway: ScriptedServer
    ) -> None:
        settings = environment.settings(LITELLM_URL=gateway.url, BODY_MAX_BYTES=10_000)
        async with running(settings) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            token = backend.token_of(user)
            events = await whole_run(backend.http, token, run_input("x" * 39_000))
            assert events[-1]["type"] == "RUN_FINISHED"
            for path, size in (("/agent", 41_000), ("/auth/login", 11_000)):
                response = await backend.http.post(
                    path, json=run_input("x" * size), headers=bearer(token)
                )
                assert response.status_code == 413
                assert response.json()["type"].endswith("body-too-large")


class TestMessages:
    async def test_number_of_stored_messages_is_unlimited(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        body = run_input("Hello")
        await whole_run(backend.http, token, body)
        ((owner,),) = await environment.query("SELECT owner_id FROM agent_threads")
        messages = [*body["messages"], *(user_says(str(n)) for n in range(10_000))]
        async with backend.services.database.transaction() as session:
            await conversations.upsert_messages(session, owner, body["threadId"], messages)
        kept = await environment.query("SELECT body->>'id' FROM agent_messages ORDER BY place")
        assert [row[0] for row in kept] == [one["id"] for one in messages]

    async def test_oversized_messages_are_refused(
        self, environment: Environment, gateway: ScriptedServer
    ) -> None:
        maximum = 256 * 1024
        sizes = {"AGENT_MESSAGE_MAX_BYTES": maximum, "AGENT_STATE_MAX_BYTES": 1024}
        async with running(environment.settings(LITELLM_URL=gateway.url, **sizes)) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            token = backend.token_of(user)
            small, large = user_says("x"), user_says("x" * maximum)
            noted = user_says("x") | {"metadata": {"note": "x" * maximum}}
            for body, field in (
                (run_input("", messages=[small, large]), "body.messages.1"),
                (run_input("", messages=[noted]), "body.messages.0"),
                (run_input("Hello", state={"x": "x" * 1024}), "body.state"),
            ):
                response = await backend.http.post("/agent", json=body, headers=bearer(token))
                assert response.status_code == 422
                (error,) = response.json()["errors"]
                assert error["field"] == field
                assert "shorten" in error["message"]
            assert await environment.query("SELECT 1 FROM agent_threads") == []
            fitting = run_input("x" * (maximum - 200), state={"x": "x" * 1000})
            events = await whole_run(backend.http, token, fitting)
            assert events[-1]["type"] == "RUN_FINISHED"

    @pytest.mark.parametrize("what", ["content", "arguments"])
    async def test_stored_responses_fit_into_a_request(
        self, environment: Environment, gateway: ScriptedServer, *, what: str
    ) -> None:
        text = "\x01" * 1000
        call = {"tool_calls": [{"index": 0, "function": {"name": "x", "arguments": text}}]}
        delta = call if what == "arguments" else {"content": text}
        said = json.dumps({"choices": [{"delta": delta}]})
        gateway.answers(CHAT, frames(*[said] * 100, STOP))
        settings = environment.settings(LITELLM_URL=gateway.url, AGENT_MESSAGE_MAX_BYTES=256 * 1024)
        async with running(settings) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            token = backend.token_of(user)
            body = run_input("Hello")
            events = await whole_run(backend.http, token, body)
            checked(events, complete=True)
            assert events[-1]["code"] == "run_too_large"
            path = f"/agent/threads/{body['threadId']}"
            thread = (await backend.http.get(path, headers=bearer(token))).json()
            again = run_input("Hello") | {"messages": thread["messages"]}
            gateway.answers(CHAT, frames(STOP))
            events = await whole_run(backend.http, token, again)
            assert events[-1]["type"] == "RUN_FINISHED"


class TestMemory:
    async def test_reading_a_conversation_does_not_parse_it(
        self, backend: Backend, token: str
    ) -> None:
        """As parsed objects, the JSON values would take thirty times as much memory."""
        body = run_input("Hello")
        await whole_run(backend.http, token, body)
        owner = (await backend.http.get("/auth/me", headers=bearer(token))).json()["id"]
        values: list[Any] = [[]] * 60_000
        messages = [user_says("") | {"metadata": {"x": values}} for _ in range(20)]
        async with backend.services.database.transaction() as session:
            await conversations.upsert_messages(session, UUID(owner), body["threadId"], messages)
        answered = 0

        async def read() -> None:
            nonlocal answered
            path = f"/agent/threads/{body['threadId']}"
            async with backend.http.stream("GET", path, headers=bearer(token)) as response:
                async for chunk in response.aiter_raw():
                    answered += len(chunk)

        tracemalloc.start()
        try:
            await asyncio.gather(*(read() for _ in range(10)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answered > 10 * 1024 * 1024
        assert peak < 5 * answered

    async def test_replays_of_ended_runs_are_limited_by_memory(
        self, backend: Backend, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bodies = [run_input("Hello") for _ in range(3)]
        for body in bodies:
            await whole_run(backend.http, token, body)
        await until(lambda: not backend.services.agent.runs)
        admin = await backend.add_user("root@shield.test", Role.ADMIN)
        profile = (await backend.http.get("/auth/me", headers=bearer(token))).json()

        async def status(number: int, token: str) -> tuple[int, str]:
            path = f"/agent/runs/{bodies[number]['runId']}/events?owner={profile['id']}"
            response = await backend.http.get(path, headers=bearer(token))
            return response.status_code, response.headers.get("retry-after", "")

        monkeypatch.setattr(ended_logs, "USER_MAX_BYTES", 1)
        key = RunKey(UUID(profile["id"]), bodies[0]["runId"])
        user = await backend.services.auth.access.authenticate(token)
        log = await backend.services.agent.service.find(user.user, key)
        assert log is not None
        assert await status(1, token) == (429, "5")
        assert (await status(0, token))[0] == 200
        assert (await status(2, backend.token_of(admin)))[0] == 200
        monkeypatch.setattr(ended_logs, "LOGS_MAX_BYTES", 1)
        assert await status(2, backend.token_of(admin)) == (502, "5")
        del log
        assert (await status(1, token))[0] == 200


class TestJoining:
    async def test_joining_is_limited_by_unsent_data(
        self, backend: Backend, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = run_input("Hello")
        await whole_run(backend.http, token, body)
        owner = (await backend.http.get("/auth/me", headers=bearer(token))).json()["id"]
        async with backend.services.database.transaction() as session:
            said = [user_says("x" * 1_000_000) for _ in range(20)]
            await conversations.upsert_messages(session, UUID(owner), body["threadId"], said)
        monkeypatch.setattr(ended_logs, "USER_MAX_BYTES", 1)
        path, joining = "/agent/connect", body | {"messages": []}
        request: dict[str, Any] = {"json": joining, "headers": bearer(token)}
        user = await backend.services.auth.access.authenticate(token)
        service = backend.services.agent.service
        unsent = await service.join(user.user, RunInput.model_validate(joining))
        response = await backend.http.post(path, **request)
        assert (response.status_code, response.headers["retry-after"]) == (429, "5")
        assert response.json()["type"].endswith("too-many-streams-of-user")
        other = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        theirs = bearer(backend.token_of(other))
        response = await backend.http.post(path, json=joining, headers=theirs)
        assert response.status_code == 200
        unsent.snapshot.clear()
        # Completely sent responses do not count towards the limit either.
        for _ in range(2):
            response = await backend.http.post(path, **request)
            assert len(response.content) > 2 * 1024 * 1024


class TestUsage:
    async def test_impossible_usage_is_omitted(
        self, backend: Backend, token: str, gateway: ScriptedServer
    ) -> None:
        usage = '{"choices":[],"usage":{"prompt_tokens":1e30,"completion_tokens":2}}'
        gateway.answers(CHAT, frames(STOP, usage))
        events = await whole_run(backend.http, token, run_input("Hello"))
        checked(events, complete=True)
        assert events[-1]["outcome"] == {"type": "success"}
        assert "usage" not in events[-1]


class TestRunEnd:
    @pytest.mark.parametrize("how", ["finished", "failed"])
    async def test_unserialisable_end_becomes_a_failure(  # noqa: PLR0913 - fixtures and cases
        self,
        backend: Backend,
        token: str,
        gateway: ScriptedServer,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
        *,
        how: str,
    ) -> None:
        def unserialisable(*_: Any) -> Any:
            if how == "failed":
                raise ValueError
            return {"type": "RUN_FINISHED", "result": 10**30}

        monkeypatch.setattr(AgentLoop, how, unserialisable)
        gateway.answers(CHAT, frames(STOP if how == "finished" else '{"error": "x"}'))
        body = run_input("Hello")
        events = await whole_run(backend.http, token, body)
        assert events[-1]["code"] == "internal_error"
        await until(lambda: not backend.services.agent.runs)
        rows = await environment.query("SELECT status, error FROM agent_runs")
        assert [tuple(row) for row in rows] == [("failed", "internal_error")]
        key = RunKey(*(await environment.query("SELECT owner_id, id FROM agent_runs"))[0])
        registry = backend.services.agent.service._registry
        (log,) = (await read_logs(environment.redis, {registry.log_key(key): 0}, 1)).values()
        assert log[-1].is_terminal
