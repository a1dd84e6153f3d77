"""Conversations and their active run: how runs are superseded, joined and cancelled."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from src.models.permissions import Role
from tests.support.accounts import bearer
from tests.support.agent import (
    cancel,
    checked,
    model_call_is,
    run_input,
    running_agent,
    text_of,
    user_says,
    whole_run,
)
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.official_client import official_clients
from tests.support.problems import check_problem
from tests.support.server import Backend, running, two_instances
from tests.support.sse import SseClient, sse
from tests.support.waiting import until

STALLS = "words 50 fault=stall"
Instances = tuple[Backend, Backend]


@pytest.fixture
async def instances(environment: Environment, gateway: Gateway) -> AsyncIterator[Instances]:
    """Two instances that share Redis, PostgreSQL and the gateway.

    A user may have two runs at a time.
    """
    async with two_instances(environment, **gateway.settings(RUNS_PER_USER=2)) as both:
        yield both


@pytest.fixture
async def token(instances: Instances) -> str:
    return instances[0].token_of(await instances[0].add_user("alice@shield.test", Role.CONTRIBUTOR))


def next_message(body: dict[str, Any], text: str, **props: Any) -> dict[str, Any]:
    """Return the request with the next message of a conversation."""
    said = {"runId": f"run-{uuid4().hex}", "messages": [user_says(text)]}
    return body | said | {"forwardedProps": props}


async def thread_of(backend: Backend, token: str, body: dict[str, Any]) -> dict[str, Any]:
    path = f"/agent/threads/{body['threadId']}"
    thread: dict[str, Any] = (await backend.http.get(path, headers=bearer(token))).json()
    return thread


async def is_active_run(backend: Backend, token: str, body: dict[str, Any]) -> bool:
    active: str | None = (await thread_of(backend, token, body))["active_run_id"]
    return active == str(body["runId"])


async def wait_for_text(stream: SseClient) -> None:
    await stream.until(lambda it: any("delta" in event for event in it.events))


class TestSecondMessage:
    async def test_refused_while_a_run_is_active(self, token: str, instances: Instances) -> None:
        here, elsewhere = instances
        body = run_input(STALLS)
        async with running_agent(here.http, token, body):
            for refused in (
                next_message(body, "Hello"),
                next_message(body, "Hello", ifRunning="reject"),
            ):
                response = await elsewhere.http.post("/agent", json=refused, headers=bearer(token))
                assert response.status_code == 409
                assert response.json()["type"].endswith("thread-busy")
            for rule in ("reject", "cancel"):
                mounted = next_message(body, "", ifRunning=rule) | {"messages": []}
                events = await whole_run(elsewhere.http, token, mounted)
                assert [event["type"] for event in events] == ["RUN_STARTED", "RUN_FINISHED"]
        thread = await thread_of(here, token, body)
        assert thread["active_run_id"] == body["runId"]
        assert len(thread["messages"]) == 1

    @pytest.mark.parametrize("index", [0, 1], ids=["the same instance", "another instance"])
    async def test_cancels_the_active_run_on_request(
        self, token: str, instances: Instances, index: int
    ) -> None:
        marker = uuid4().hex
        body = run_input(f"{marker}\n{STALLS}")
        second = next_message(body, f"Hello {marker}", ifRunning="cancel")
        async with (
            running_agent(instances[0].http, token, body) as stream,
            # Another run that counts against the limit, in another conversation.
            running_agent(instances[0].http, token, run_input(STALLS)),
        ):
            await wait_for_text(stream)
            events = await whole_run(instances[index].http, token, second)
            assert text_of(checked(events, complete=True)[1]) == f"Echo: Hello {marker}"
            await stream.until_ended()
            assert checked(stream.events, complete=True)[0].outcome == "cancelled"
        thread = await thread_of(instances[0], token, body)
        assert thread["active_run_id"] is None
        assert [run["status"] for run in thread["runs"]] == ["finished", "cancelled"]
        # The text of the cancelled run precedes the second message.
        assert [one["role"] for one in thread["messages"]] == ["user", "assistant"] * 2

    async def test_repeated_request_does_not_cancel_its_run(
        self, token: str, instances: Instances
    ) -> None:
        here, _ = instances
        body = run_input(STALLS, forwardedProps={"ifRunning": "cancel"})
        async with running_agent(here.http, token, body) as stream:
            response = await here.http.post("/agent", json=body, headers=bearer(token))
            assert response.json()["type"].endswith("run-exists")
            assert not stream.ended

    async def test_concurrent_messages_supersede_one_another(
        self, token: str, instances: Instances
    ) -> None:
        here, _ = instances
        body = run_input(STALLS)
        seconds = [next_message(body, STALLS, ifRunning="cancel") for _ in instances]
        async with running_agent(here.http, token, body), asyncio.TaskGroup() as both:
            runs = {
                both.create_task(whole_run(backend.http, token, second)): second
                for backend, second in zip(instances, seconds, strict=True)
            }
            ended, on = await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
            assert checked(ended.pop().result(), complete=True)[0].outcome == "cancelled"
            last = runs[on.pop()]
            await until(lambda: is_active_run(here, token, last))
            await cancel(here, token, last)
        thread = await thread_of(here, token, body)
        assert [run["status"] for run in thread["runs"]] == ["cancelled"] * 3

    async def test_refused_message_cancels_nothing(
        self, environment: Environment, gateway: Gateway, token: str, instances: Instances
    ) -> None:
        here, _ = instances
        ended, body = run_input("Hello"), run_input(STALLS)
        await whole_run(here.http, token, ended)
        again = next_message(body, "Hello", ifRunning="cancel")
        large = next_message(body, "x" * 128 * 1024, ifRunning="cancel")
        limits = {"RUNS_PER_USER": 1, "AGENT_THREAD_MAX_BYTES": 64 * 1024}
        settings = environment.settings(
            **gateway.settings(REDIS_CONSUMER_NAME="host-8004", **limits)
        )
        async with running(settings) as strict, running_agent(here.http, token, body) as stream:

            async def is_refused(refused: dict[str, Any], problem: str) -> None:
                response = await strict.http.post("/agent", json=refused, headers=bearer(token))
                assert response.json()["type"].endswith(problem)
                # A cancellation waits until the end of the run is stored.
                assert await is_active_run(here, token, body)

            await wait_for_text(stream)
            await is_refused(again | {"runId": ended["runId"]}, "run-exists")
            await is_refused(large, "conversation-too-large")
            async with running_agent(here.http, token, run_input(STALLS)):
                await is_refused(again, "too-many-runs")
            move = "UPDATE agent_threads SET workspace = $2 WHERE id = $1"
            await environment.query(move, body["threadId"], "elsewhere")
            response = await here.http.post("/agent", json=again, headers=bearer(token))
            assert response.json()["type"].endswith("thread-in-another-workspace")
            await environment.query(move, body["threadId"], "default")
            assert await is_active_run(here, token, body)

    async def test_unknown_rule_is_refused(self, token: str, instances: Instances) -> None:
        for props in ({"ifRunning": "wait"}, {"onDisconnect": True}):
            body = run_input("Hello", forwardedProps=props)
            response = await instances[0].http.post("/agent", json=body, headers=bearer(token))
            assert response.status_code == 422
            assert next(iter(props)) in response.json()["errors"][0]["message"]


class TestTitle:
    async def test_changed_title_is_kept(self, token: str, instances: Instances) -> None:
        here, elsewhere = instances
        body = run_input("Say something.")
        await whole_run(here.http, token, body)
        path = f"/agent/threads/{body['threadId']}"
        assert (await thread_of(here, token, body))["title"] == "Say something."
        renamed = await elsewhere.http.put(
            f"{path}/title", json={"title": "Shields"}, headers=bearer(token)
        )
        assert (renamed.status_code, renamed.json()["title"]) == (200, "Shields")
        await whole_run(here.http, token, next_message(body, "And more."))
        assert (await thread_of(here, token, body))["title"] == "Shields"
        for title in ("", "a\nb", "x" * 201):
            refused = await here.http.put(
                f"{path}/title", json={"title": title}, headers=bearer(token)
            )
            check_problem(refused, 422, "invalid-request")


class TestDisconnect:
    @pytest.mark.parametrize("rule", [None, "cancel"])
    async def test_cancels_the_run_only_on_request(
        self, gateway: Gateway, token: str, instances: Instances, rule: str | None
    ) -> None:
        here, _ = instances
        marker = uuid4().hex
        body = run_input(f"{marker}\n{STALLS}", forwardedProps={"onDisconnect": rule})
        async with running_agent(here.http, token, body) as stream:
            await wait_for_text(stream)
            # Other clients of the run may disconnect.
            async with sse(here.http, f"/agent/runs/{body['runId']}/events", token=token) as other:
                await wait_for_text(other)
        if rule == "cancel":
            await until(lambda: model_call_is(gateway, marker, "cancelled"))
            await until(lambda: not here.services.agent.runs)
            (run,) = (await thread_of(here, token, body))["runs"]
            assert run["status"] == "cancelled"
        else:
            # The stream has long been closed when another run has ended.
            await whole_run(here.http, token, next_message(run_input(""), "") | {"messages": []})
            assert await model_call_is(gateway, marker, "streaming")
            await until(lambda: len(here.services.agent.runs) == 1)


class TestJoining:
    @pytest.mark.parametrize("index", [0, 1], ids=["the same instance", "another instance"])
    async def test_receives_the_messages_and_the_active_run(
        self, token: str, instances: Instances, index: int
    ) -> None:
        body = run_input("Hello")
        await whole_run(instances[0].http, token, body)
        second = next_message(body, STALLS)
        async with running_agent(instances[0].http, token, second) as stream:
            await wait_for_text(stream)
            joining = next_message(body, "") | {"messages": []}
            path = "/agent/connect"
            async with sse(instances[index].http, path, token=token, body=joining) as joined:
                await wait_for_text(joined)
                await cancel(instances[0], token, second)
                await joined.until_ended()
            await stream.until_ended()
        started, snapshot, *rest = joined.events
        assert started["runId"] == second["runId"]
        assert snapshot["type"] == "MESSAGES_SNAPSHOT"
        assert [one["role"] for one in snapshot["messages"]] == ["user", "assistant", "user"]
        assert [started, *rest] == stream.events
        checked(joined.events, complete=True)
        assert [one.id for one in joined.frames if one.data][:3] == ["1-0", None, "2-0"]

    async def test_official_client_reaches_the_state_of_the_first_client(
        self, token: str, instances: Instances
    ) -> None:
        here, elsewhere = instances
        body = run_input("Hello")
        second = next_message(body, STALLS)
        async with official_clients() as clients:
            client, joiner = clients.new(), clients.new()
            await client.run(f"{here.http.base_url}/agent", token, body).held()
            began = client.run(f"{here.http.base_url}/agent", token, second)
            await began.joined()
            joined = joiner.join(f"{elsewhere.http.base_url}/agent", token, body["threadId"])
            await joined.joined()
            await cancel(here, token, second)
            held = await joined.held()
            assert held.shown == (await began.held()).shown
        assert [one["role"] for one in held.messages][:3] == ["user", "assistant", "user"]

    async def test_without_active_run_receives_the_messages_only(
        self, token: str, instances: Instances
    ) -> None:
        here, _ = instances
        body = run_input("Hello")
        await whole_run(here.http, token, body)
        before = await thread_of(here, token, body)
        for known in (body, run_input("New")):
            joining = known | {"runId": "joining", "messages": []}
            async with sse(here.http, "/agent/connect", token=token, body=joining) as joined:
                await joined.until_ended()
            checked(joined.events, complete=True)
            snapshots = [one for one in joined.events if one["type"] == "MESSAGES_SNAPSHOT"]
            assert [one["messages"] for one in snapshots] == (
                [before["messages"]] if known is body else []
            )
        assert await thread_of(here, token, body) == before
