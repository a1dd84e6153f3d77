"""Runs of the agent that continue whatever happens to their clients, instances and servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import OutOfMemoryError

from src.models.agent_input import RunInput
from src.models.permissions import Role
from src.models.user import User
from src.services.agui import events as agui
from src.services.agui.events import Event, now
from src.services.runs import follower as run_follower
from src.services.runs import manager as run_manager
from src.services.runs import registry as run_registry
from src.services.runs import store as run_store
from src.services.runs import sweeper as run_sweeper
from src.services.runs.errors import LOST
from src.services.runs.log import LogRecord
from src.services.runs.registry import RunKey
from tests.run_checker import check_frames
from tests.support.accounts import bearer
from tests.support.agent import (
    cancel,
    checked,
    events_path,
    model_call_is,
    model_call_states,
    run_input,
    running_agent,
    text_of,
    whole_run,
)
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.official_client import Held, OfficialClients
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running, two_instances
from tests.support.sse import SseClient, sse
from tests.support.waiting import until

STALLS = "words 50 fault=stall"


@pytest.fixture
async def instances(
    environment: Environment, gateway: Gateway
) -> AsyncIterator[tuple[Backend, Backend]]:
    async with two_instances(environment, **gateway.settings()) as both:
        yield both


async def contributor(backend: Backend) -> tuple[User, str]:
    user = await backend.add_user(f"{uuid4().hex}@shield.test", Role.CONTRIBUTOR)
    return user, backend.token_of(user)


def agent_of(backend: Backend) -> str:
    return f"{backend.http.base_url}/agent"


def url_of(backend: Backend, body: dict[str, Any]) -> str:
    """Return the URL of the run's events."""
    return f"{backend.http.base_url}{events_path(body)}"


async def status_of(backend: Backend, token: str, body: dict[str, Any]) -> str:
    response = await backend.http.get(f"/agent/runs/{body['runId']}", headers=bearer(token))
    status: str = response.json()["status"]
    return status


def shorten_failure_detection(monkeypatch: pytest.MonkeyPatch, *, lease: float) -> None:
    """Let followers of a run detect quickly that its process is gone."""
    monkeypatch.setattr(run_registry, "LEASE_SECONDS", lease)
    monkeypatch.setattr(run_follower, "_LEASE_GRACE_SECONDS", 0.3)
    monkeypatch.setattr(run_follower, "_LEASE_CHECK_SECONDS", 0.1)


def text_deltas(stream: SseClient) -> int:
    return sum(event["type"] == "TEXT_MESSAGE_CONTENT" for event in stream.events)


def without_user_messages(held: Held, body: dict[str, Any]) -> Iterable[Any]:
    """Return what a client shows, without the user's messages."""
    mine = {message["id"] for message in body["messages"]}
    shown = held.shown
    return shown | {"messages": [one for one in shown["messages"] if one["id"] not in mine]}


class TestOfficialClient:
    async def test_runs_and_resumes_on_another_instance(
        self,
        instances: tuple[Backend, Backend],
        clients: OfficialClients,
        environment: Environment,
    ) -> None:
        one, two = instances
        _, token = await contributor(one)
        bodies = [
            run_input(
                'call lightrag_query {"query": "one"} && call health_check {}'
                " && say Let me see what there is\n"
                'call qdrant_find {"query": "two"}',
                state={"page": 3},
            )
            for _ in range(4)
        ]
        whole, *cut = bodies
        following = {
            body["runId"]: (
                clients.new(),
                body,
                {"frames": 4 * index + 2, "abrupt": index == 2} if index else None,
            )
            for index, body in enumerate(bodies)
        }
        held: dict[str, Held] = {}
        for run_id, (client, body, where) in following.items():
            options = {"cut": where} if where else {}
            held[run_id] = await client.run(agent_of(one), token, body, **options).held()
        assert held[whole["runId"]].outcome == "success"
        roles = [message["role"] for message in held[whole["runId"]].messages]
        assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
        for body in cut:
            assert held[body["runId"]].outcome is None
            client = following[body["runId"]][0]
            resumed = await client.follow(url_of(two, body), token).held()
            fresh = clients.new().follow(url_of(one, body), token)
            assert without_user_messages(resumed, body) == without_user_messages(
                await fresh.held(), body
            )
            assert resumed.messages[0]["content"] == body["messages"][0]["content"]

        # After each frame of an ended run: from Redis, and from PostgreSQL alone.
        path = url_of(two, whole)
        frames = len(held[whole["runId"]].ids)
        for _ in range(2):
            joining = [clients.new() for _ in range(1, frames)]
            for index, client in enumerate(joining, start=1):
                await client.follow(path, token, cut={"frames": index}).held()
            again = [client.follow(path, token) for client in joining]
            for following_again in again:
                assert without_user_messages(
                    await following_again.held(), whole
                ) == without_user_messages(held[whole["runId"]], whole)
            await environment.forget_runs()

    async def test_sends_results_of_its_own_tools(
        self, instances: tuple[Backend, Backend], clients: OfficialClients
    ) -> None:
        one, _ = instances
        _, token = await contributor(one)
        tool = {"name": "ask_colour", "description": "Ask", "parameters": {"type": "object"}}
        client = clients.new()
        body = run_input("call ask_colour {}", tools=[tool])
        held = await client.run(agent_of(one), token, body).held_with_faults()
        assert held.failure is None
        (pending,) = held.pending
        answer = {"id": "answer", "role": "tool", "toolCallId": pending, "content": "mauve"}
        further = body | {"runId": uuid4().hex, "messages": [answer]}
        held = await client.run(agent_of(one), token, further).held()
        assert held.messages[-1]["content"] == "Done: mauve"

    async def test_receives_errors(
        self, instances: tuple[Backend, Backend], clients: OfficialClients
    ) -> None:
        one, _ = instances
        _, token = await contributor(one)
        held = (
            await clients.new()
            .run(agent_of(one), token, run_input("fault=cut words 9\nwords 9"))
            .held()
        )
        assert held.outcome == "error"
        assert held.error
        assert held.error["code"] == "model_failed"
        assert held.messages[-1]["role"] == "assistant"


class TestLimits:
    async def test_run_limit_applies_across_instances(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        settings = gateway.settings(RUNS_PER_USER=2)
        async with two_instances(environment, **settings) as (first, second):
            _, token = await contributor(first)
            bodies = [run_input(STALLS) for _ in range(2)]
            async with (
                running_agent(first.http, token, bodies[0]),
                running_agent(second.http, token, bodies[1]),
            ):
                for backend in (first, second):
                    response = await backend.http.post(
                        "/agent", json=run_input("Hello"), headers=bearer(token)
                    )
                    assert response.status_code == 429
            for body in bodies:
                await cancel(first, token, body)

    async def test_long_run_keeps_its_lease(
        self, environment: Environment, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shorten_failure_detection(monkeypatch, lease=1.0)
        monkeypatch.setattr(run_manager, "_RENEW_SECONDS", 0.1)
        settings = gateway.settings(RUNS_PER_USER=1)
        async with two_instances(environment, **settings) as (here, elsewhere):
            _, token = await contributor(here)
            # Takes longer than several leases.
            marker = uuid4().hex
            body = run_input(f"{marker} fault=hold\nwords 12")
            async with (
                running_agent(here.http, token, body) as stream,
                sse(elsewhere.http, events_path(body), token=token) as following,
            ):
                await following.until(text_deltas)
                await asyncio.sleep(4)
                for backend in (here, elsewhere):
                    response = await backend.http.post(
                        "/agent", json=run_input("Hello"), headers=bearer(token)
                    )
                    assert response.status_code == 429
                await gateway.release(marker)
                await following.until_ended()
                await stream.until_ended()
                for each in (stream, following):
                    assert each.events[-1]["type"] == "RUN_FINISHED"


class TestDetachedRuns:
    async def test_run_continues_and_can_be_joined_on_any_instance(
        self, instances: tuple[Backend, Backend], gateway: Gateway
    ) -> None:
        one, two = instances
        _, token = await contributor(one)
        marker = uuid4().hex
        body = run_input(f"{marker} fault=hold\nwords 12")
        async with running_agent(one.http, token, body) as stream:
            await stream.until(lambda it: text_deltas(it) >= 1)
            last = stream.ids[-1]
        async with (
            sse(two.http, events_path(body), token=token, after=last) as resumed,
            sse(two.http, events_path(body), token=token) as joined,
            sse(one.http, events_path(body), token=token, after=last) as here,
        ):
            # Live: not only after the end of the run.
            await joined.until(text_deltas)
            await gateway.release(marker)
            for stream in (resumed, joined, here):
                await stream.until_ended()
            _, client = checked(joined.events, complete=True)
            assert text_of(client) == " ".join(f"word{number}" for number in range(12))
            for stream in (resumed, here):
                check_frames(stream.frames, after=last)
                assert stream.events[-1]["type"] == "RUN_FINISHED"
                tail = [one for one in joined.frames if one.id in stream.ids]
                assert [one for one in stream.frames if one.id] == tail
        assert await model_call_states(gateway, marker) == ["done"]
        assert await status_of(two, token, body) == "finished"

    async def test_run_is_cancelled_from_another_instance(
        self, instances: tuple[Backend, Backend], gateway: Gateway
    ) -> None:
        one, two = instances
        _, token = await contributor(one)
        marker = uuid4().hex
        body = run_input(f"{marker}\n{STALLS}")
        async with running_agent(one.http, token, body) as stream:
            await stream.until(text_deltas)
            assert await model_call_states(gateway, marker) == ["streaming"]
            await cancel(two, token, body)
            await stream.until_ended()
            run, _ = checked(stream.events, complete=True)
            assert run.outcome == "cancelled"
        await until(lambda: model_call_is(gateway, marker, "cancelled"))
        assert await status_of(two, token, body) == "cancelled"
        # There is nothing left to cancel.
        await cancel(one, token, body)

    async def test_stream_ends_with_the_access_while_the_run_continues(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        async with running(environment.settings(**gateway.settings())) as backend:
            user, token = await contributor(backend)
            body = run_input(STALLS)
            short = backend.token_of(user, ACCESS_TOKEN_EXPIRE_MINUTES=0.02)
            async with running_agent(backend.http, short, body) as stream:
                await stream.until_ended()
                assert "the token has expired" in stream.comments
            async with sse(backend.http, events_path(body), token=token) as stream:
                await stream.until(text_deltas)
                await environment.query("UPDATE sessions SET ended_at = now()")
                await environment.query(
                    "INSERT INTO access_changes (user_id, why) VALUES ($1, 'logout')", user.id
                )
                await stream.until_ended()
            assert len(backend.services.agent.runs) == 1


class TestFaults:
    async def test_model_errors_have_codes_without_details(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        faults = {
            "429": "rate_limited",
            "500": "model_failed",
            "400": "model_rejected",
            "overflow": "context_too_long",
            "401": "gateway_refused",
            "cut": "model_failed",
            "stall": "model_timeout",
        }
        settings = gateway.settings(AGENT_MODEL_TIMEOUT_SECONDS=2, RUNS_PER_USER=10)
        async with running(environment.settings(**settings)) as backend:
            _, token = await contributor(backend)
            runs = {
                fault: whole_run(backend.http, token, run_input(f"fault={fault}\nwords 9"), 30)
                for fault in faults
            }
            for fault, events in zip(runs, await asyncio.gather(*runs.values()), strict=True):
                checked(events, complete=True)
                assert (fault, events[-1]["code"]) == (fault, faults[fault])
                assert "scripted" not in str(events[-1])
                assert events[-1]["metadata"]["retryable"] is (
                    fault not in {"400", "401", "overflow"}
                )
            rows = await environment.query("SELECT status, error FROM agent_runs ORDER BY error")
            assert [row[1] for row in rows] == sorted(faults.values())
            assert {row[0] for row in rows} == {"failed"}

    async def test_gateway_outage(self, environment: Environment, gateway: Gateway) -> None:
        async with TcpProxy(gateway.url, 80) as proxy:
            settings = gateway.settings(LITELLM_URL=proxy.url, BREAKER_FAILURES=100)
            async with running(environment.settings(**settings)) as backend:
                _, token = await contributor(backend)
                async with running_agent(backend.http, token, run_input(STALLS)) as stream:
                    await stream.until(text_deltas)
                    await proxy.refuse()
                    await stream.until_ended()
                assert stream.events[-1]["code"] == "model_failed"
                events = await whole_run(backend.http, token, run_input("Hello"))
                assert events[-1]["code"] == "gateway_unavailable"
                await proxy.accept()
                events = await whole_run(backend.http, token, run_input("Hello"))
                assert events[-1]["type"] == "RUN_FINISHED"

    async def test_permission_lost_between_rounds(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        async with running(environment.settings(**gateway.settings())) as backend:
            user, token = await contributor(backend)
            marker = uuid4().hex
            question = f'{{"query": "{marker} fault=slow-1"}}'
            body = run_input(f"call lightrag_query {question}\ncall health_check {{}}")
            async with running_agent(backend.http, token, body) as stream:
                await until(lambda: gateway.tool_calls(marker))
                await environment.query("UPDATE users SET role = 'viewer' WHERE id = $1", user.id)
                await stream.until_ended()
            assert stream.events[-1]["code"] == "permission_lost"
            assert "health_check" in str(stream.events)
            assert str(stream.events).count("TOOL_CALL_RESULT") == 1

    @pytest.mark.parametrize(
        ("method", "path", "change"),
        [("PUT", "role", {"role": "viewer"}), ("POST", "deactivate", None)],
        ids=["role", "account"],
    )
    async def test_lost_access_ends_active_runs_on_every_instance(
        self,
        instances: tuple[Backend, Backend],
        gateway: Gateway,
        method: str,
        path: str,
        change: dict[str, str] | None,
    ) -> None:
        one, other = instances
        user, token = await contributor(one)
        admin = bearer(other.token_of(await other.add_user("root@shield.test", Role.ADMIN)))
        marker = uuid4().hex
        body = run_input(f"{STALLS} {marker}")
        async with running_agent(one.http, token, body) as stream:
            await stream.until(text_deltas)
            changed = await other.http.request(
                method, f"/admin/users/{user.id}/{path}", json=change, headers=admin
            )
            assert changed.status_code == 200, changed.text
            await until(lambda: model_call_is(gateway, marker, "cancelled"))
        await until(lambda: not one.services.agent.runs)
        run = f"/agent/runs/{body['runId']}?owner={user.id}"
        ended = (await other.http.get(run, headers=admin)).json()
        assert (ended["status"], ended["error"]) == ("failed", "permission_lost")

    async def test_access_lost_while_the_run_starts(
        self, environment: Environment, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A change is noticed before the run is registered and can be stopped."""
        async with running(environment.settings(**gateway.settings())) as backend:
            user, token = await contributor(backend)
            conversations = backend.services.agent.conversations
            begin = conversations.begin

            async def begin_and_lose_access(*what: Any) -> None:
                await begin(*what)
                await environment.query("UPDATE users SET role = 'viewer' WHERE id = $1", user.id)

            monkeypatch.setattr(conversations, "begin", begin_and_lose_access)
            events = await whole_run(backend.http, token, run_input(STALLS))
            assert events[-1]["code"] == "permission_lost"


class TestOutages:
    async def test_run_continues_without_redis(
        self, environment: Environment, gateway: Gateway, redis_proxy: TcpProxy
    ) -> None:
        through = environment.settings(**gateway.settings(REDIS_URL=redis_proxy.url))
        other = environment.settings(**gateway.settings(REDIS_CONSUMER_NAME="host-8003"))
        async with running(through) as here, running(other) as elsewhere:
            _, token = await contributor(here)
            marker = uuid4().hex
            body = run_input(f"{marker} fault=hold\nwords 15")
            async with running_agent(here.http, token, body) as stream:
                await stream.until(text_deltas)
                await redis_proxy.refuse()
                response = await here.http.post(
                    "/agent", json=run_input("Hello"), headers=bearer(token)
                )
                assert response.status_code == 503
                assert response.json()["type"].endswith("run-log-unavailable")
                begun = text_deltas(stream)
                await gateway.release(marker)
                await stream.until(lambda it: text_deltas(it) > begun + 3)
                async with sse(elsewhere.http, events_path(body), token=token) as follower:
                    await redis_proxy.accept()
                    await stream.until_ended()
                    await follower.until_ended()
                    assert [one for one in follower.frames if one.data] == [
                        one for one in stream.frames if one.data
                    ]
            checked(stream.events, complete=True)

    async def test_storing_is_retried_without_postgresql(
        self, environment: Environment, gateway: Gateway, database_proxy: TcpProxy
    ) -> None:
        through = environment.settings(**gateway.settings(DATABASE_URL=database_proxy.url))
        async with running(through) as backend:
            _, token = await contributor(backend)
            body = run_input("fault=drip-0.1\ncall health_check {}\nwords 5")
            async with running_agent(backend.http, token, body) as stream:
                await stream.until(lambda it: len(it.events) > 1)
                await database_proxy.refuse()
                await stream.until_ended()
                checked(stream.events, complete=True)
            response = await backend.http.post(
                "/agent", json=run_input("Hello"), headers=bearer(token)
            )
            assert response.status_code == 503
            # By now Redis has it.
            async with sse(backend.http, events_path(body), token=token) as again:
                await again.until_ended()
                assert again.events == stream.events
            await database_proxy.accept()
            await until(lambda: not backend.services.agent.runs, 20)
            assert await status_of(backend, token, body) == "finished"
            thread = await backend.http.get(
                f"/agent/threads/{body['threadId']}", headers=bearer(token)
            )
            assert [one["role"] for one in thread.json()["messages"]][:3] == [
                "user",
                "assistant",
                "tool",
            ]


class TestProcessFailures:
    async def test_readers_detect_a_dead_process(
        self, environment: Environment, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shorten_failure_detection(monkeypatch, lease=0.3)
        monkeypatch.setattr(run_sweeper, "_INTERVAL_SECONDS", 0.1)
        monkeypatch.setattr(run_store, "_MIN_AGE", timedelta(seconds=1))
        async with running(environment.settings(**gateway.settings())) as backend:
            user, token = await contributor(backend)
            read, unread = run_input("Hello"), run_input("Hello")
            for body in (read, unread):
                await _create_dead_run(backend, user, body)
            async with sse(backend.http, events_path(read), token=token) as stream:
                await stream.until_ended()
                checked(stream.events, complete=True)
                assert stream.events[-1]["code"] == "run_lost"
                assert [event["type"] for event in stream.events[:2]] == [
                    "RUN_STARTED",
                    "TEXT_MESSAGE_START",
                ]
            for body in (read, unread):
                await until(partial(_has_failed, backend, token, body))
            # The ended runs do not count against the user's limit.
            await whole_run(backend.http, token, run_input("Hello"))

    async def test_ended_runs_of_a_dead_process_are_stored(
        self, environment: Environment, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_registry, "LEASE_SECONDS", 0.3)
        monkeypatch.setattr(run_sweeper, "_INTERVAL_SECONDS", 0.1)
        monkeypatch.setattr(run_store, "_MIN_AGE", timedelta(seconds=1))
        async with running(environment.settings(**gateway.settings())) as backend:
            user, token = await contributor(backend)
            body = run_input("Hello")
            await _create_dead_run(backend, user, body, *_remaining_events_of(body))
            path = f"/agent/threads/{body['threadId']}"

            async def kept() -> list[Any]:
                thread = (await backend.http.get(path, headers=bearer(token))).json()
                return [
                    *(run["status"] for run in thread["runs"]),
                    *(message["role"] for message in thread["messages"]),
                ]

            await until(lambda: _is(kept, ["finished", "user", "assistant"]))

    async def test_late_end_overrides_a_presumed_loss(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        async with running(environment.settings(**gateway.settings())) as backend:
            user, token = await contributor(backend)
            body = run_input("Hello")
            begun = await _create_dead_run(backend, user, body)
            key = RunKey(user.id, body["runId"])
            persist = run_store.RunStore(
                backend.services.database, backend.services.audit.logger
            ).persist
            lost = [*begun, LogRecord.of(LOST.event())]
            assert await persist(key, lost)
            assert await status_of(backend, token, body) == "failed"
            ended = [*begun, *(LogRecord.of(event) for event in _remaining_events_of(body))]
            assert await persist(key, ended)
            assert await persist(key, lost)
            assert await status_of(backend, token, body) == "finished"
            async with sse(backend.http, events_path(body), token=token) as stream:
                await stream.until_ended()
                checked(stream.events, complete=True)

    async def test_run_closed_by_another_process_ends(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        async with running(environment.settings(**gateway.settings())) as backend:
            user, token = await contributor(backend)
            body = run_input(STALLS)
            async with running_agent(backend.http, token, body) as stream:
                await stream.until(text_deltas)
                key = RunKey(user.id, body["runId"])
                await environment.redis.set(
                    f"{backend.services.agent.service._registry.log_key(key)}:lease", "closed"
                )
                await stream.until_ended()
            assert stream.events[-1]["code"] == "run_lost"

    async def test_unpublished_end_is_found_by_other_processes(
        self, environment: Environment, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_manager, "_CLOSE_SECONDS", 0.2)
        shorten_failure_detection(monkeypatch, lease=3.0)
        here = environment.settings(**gateway.settings(SHUTDOWN_GRACE_SECONDS=1))
        other = environment.settings(**gateway.settings(REDIS_CONSUMER_NAME="host-8003"))
        async with running(other) as elsewhere, AsyncExitStack() as lives:
            one = await lives.enter_async_context(running(here))
            _, token = await contributor(one)
            body = run_input(STALLS)
            stream = await lives.enter_async_context(running_agent(one.http, token, body))
            async with sse(elsewhere.http, events_path(body), token=token) as following:
                await following.until(text_deltas)
                monkeypatch.setattr(one.services.agent.service._registry, "append", _refused)
                await cancel(one, token, body)
                await stream.until_ended()
                await lives.aclose()
                await following.until_ended()
            published, received = (
                [one for one in it.frames if one.data] for it in (stream, following)
            )
            assert received == published
            assert await status_of(elsewhere, token, body) == "cancelled"

    async def test_shutdown_lets_runs_finish_within_the_grace_period(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        settings = environment.settings(**gateway.settings(SHUTDOWN_GRACE_SECONDS=3))
        other = environment.settings(**gateway.settings(REDIS_CONSUMER_NAME="host-8003"))
        async with running(other) as elsewhere:
            async with running(settings) as stopped:
                _, token = await contributor(stopped)
                short, long = run_input("fault=drip-0.1\nwords 6"), run_input(STALLS)
                theirs = run_input(STALLS)
                alone = run_input("fault=drip-0.2\nwords 9")
                async with running_agent(stopped.http, token, alone):
                    # Its client disconnects, and nobody else follows the run.
                    pass
                async with (
                    running_agent(stopped.http, token, short) as finishes,
                    running_agent(stopped.http, token, long) as ends,
                    running_agent(elsewhere.http, token, theirs),
                    sse(stopped.http, events_path(theirs), token=token) as leaves,
                ):
                    await ends.until(text_deltas)
                    stopped.services.drain()
                    await leaves.until_ended()
                    response = await stopped.http.post(
                        "/agent", json=run_input("Hello"), headers=bearer(token)
                    )
                    assert response.status_code == 502
                    await finishes.until_ended()
                    await ends.until_ended()
            assert finishes.events[-1]["type"] == "RUN_FINISHED"
            assert ends.events[-1]["code"] == "shutdown"
            assert ends.events[-1]["metadata"] == {"retryable": True}
            assert await status_of(elsewhere, token, long) == "failed"
            assert await status_of(elsewhere, token, alone) == "finished"
            async with sse(elsewhere.http, events_path(long), token=token) as stream:
                await stream.until_ended()
                assert stream.events == ends.events
            await cancel(elsewhere, token, theirs)
            await until(lambda: not elsewhere.services.agent.runs)


async def _refused(*_: Any) -> None:
    raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'")


def _remaining_events_of(body: dict[str, Any]) -> list[Event]:
    """Return the remaining events of the run of _create_dead_run()."""
    return [
        agui.text_content("m", "Hello", now()),
        agui.text_end("m", now()),
        agui.agent_run_finished(body["threadId"], body["runId"], {}, [], now()),
    ]


async def _create_dead_run(
    backend: Backend, user: User, body: dict[str, Any], *further: Event
) -> list[LogRecord]:
    """Create the data of a process that was killed in the middle of a run, or after its end."""
    service = backend.services.agent.service
    key = RunKey(user.id, body["runId"])
    assert await service._registry.begin(key, 5) == "begun"
    await service.conversations.begin(user, RunInput.model_validate(body))
    begun = [agui.run_started(body["threadId"], body["runId"], now()), agui.text_start("m", now())]
    records = [LogRecord.of(event) for event in (*begun, *further)]
    await service._registry.append(key, records, 0)
    return records


async def _is(asked: Callable[[], Awaitable[Any]], expected: Any) -> bool:
    return bool(await asked() == expected)


async def _has_failed(backend: Backend, token: str, body: dict[str, Any]) -> bool:
    return await status_of(backend, token, body) == "failed"
