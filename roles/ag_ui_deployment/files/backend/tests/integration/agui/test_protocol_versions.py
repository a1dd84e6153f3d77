"""Several releases of `@ag-ui/client`, each answered in its own protocol version.

Releases before 1.0 abort a run on an outcome, an event type or a null that their schemas lack.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
from ag_ui.core import EventType

from src.models.permissions import Role
from src.models.protocol import ProtocolVersion
from src.services.agui import events as agui
from src.services.agui.events import Event, Stamp
from src.services.agui.sse import encode, translated
from tests.support.accounts import bearer
from tests.support.agent import (
    ASK_COLOUR,
    cancel,
    events_path,
    run_input_without_version,
    user_says,
)
from tests.support.environment import Environment
from tests.support.event_sequences import EVENT_SEQUENCES, every_job, unchanged
from tests.support.gateway import Gateway
from tests.support.official_client import (
    Following,
    Held,
    OfficialClient,
    OfficialClients,
)
from tests.support.server import Backend, running
from tests.support.sse import frames_by_job, sse, wait_until_received
from tests.support.waiting import until

CURRENT = "1.0.0"
OLDER = ("0.0.59", "0.0.55")
OLDER_PROTOCOL = "protocolVersion=0.0"
every_client = pytest.mark.parametrize("version", [CURRENT, *OLDER])


@pytest.fixture
async def agent(environment: Environment, gateway: Gateway) -> AsyncIterator[Backend]:
    async with running(environment.settings(**gateway.settings())) as started:
        yield started


@pytest.fixture
async def token(agent: Backend) -> str:
    return agent.token_of(await agent.add_user("alice@shield.test", Role.CONTRIBUTOR))


def run(client: OfficialClient, backend: Backend, token: str, body: dict[str, Any]) -> Following:
    return client.run(f"{backend.http.base_url}/agent", token, body)


def roles(held: Held) -> list[str]:
    return [message["role"] for message in held.messages]


@every_client
class TestRuns:
    async def test_success_with_parallel_tools(
        self, agent: Backend, token: str, clients: OfficialClients, version: str
    ) -> None:
        body = run_input_without_version(
            'call lightrag_query {"query": "one"} && call health_check {} && say Let me see\n'
            'call qdrant_find {"query": "two"}',
            state={"page": 3},
        )
        held = await run(clients.new(version), agent, token, body).held()
        assert (held.outcome, held.state) == ("success", {"page": 3})
        assert roles(held) == [
            "user",
            "assistant",
            "tool",
            "tool",
            "assistant",
            "tool",
            "assistant",
        ]
        assert set(held.calls.values()) == {"lightrag_query", "health_check", "qdrant_find"}
        assert held.result["rounds"] == 3

    async def test_failure(
        self, agent: Backend, token: str, clients: OfficialClients, version: str
    ) -> None:
        held = await run(
            clients.new(version), agent, token, run_input_without_version("words 9 fault=cut")
        ).held()
        assert held.outcome == "error"
        assert held.error
        assert held.error["code"] == "model_failed"
        assert held.messages[-1]["content"].startswith("Echo: words 9")

    async def test_cancellation(
        self, agent: Backend, token: str, clients: OfficialClients, version: str
    ) -> None:
        body = run_input_without_version("words 50 fault=stall")
        client = clients.new(version)
        following = run(client, agent, token, body)
        await following.joined()
        await cancel(agent, token, body)
        held = await following.held()
        # Before 1.0 no outcome reports it: the run just ends, as with CopilotKit's own stop.
        assert held.outcome == ("cancelled" if version == CURRENT else "success")
        assert held.result is None
        next_run = run(
            client, agent, token, {**body, "runId": "next", "messages": [user_says("Hi")]}
        )
        assert (await next_run.held()).messages[-1]["content"] == "Echo: Hi"

    async def test_client_tools_are_returned_to_the_client(
        self, agent: Backend, token: str, clients: OfficialClients, version: str
    ) -> None:
        body = run_input_without_version(
            'call health_check {} && call ask_colour {"among": ["mauve"]} && '
            'call ask_colour {"among": ["teal"]}',
            tools=[ASK_COLOUR],
        )
        client = clients.new(version)
        held = await run(client, agent, token, body).held_with_faults()
        assert (held.failure, held.printed, held.outcome) == (None, [], "success")
        mine = [call for call, name in held.calls.items() if name == "ask_colour"]
        assert len(mine) == 2
        assert held.pending == (mine if version == CURRENT else [])
        assert [held.calls[call] for call in held.results] == ["health_check"]
        answers = [
            {"id": f"answer-{call}", "role": "tool", "toolCallId": call, "content": colour}
            for call, colour in zip(mine, ("mauve", "teal"), strict=True)
        ]
        next_run = run(client, agent, token, {**body, "runId": "next", "messages": answers})
        assert (await next_run.held()).messages[-1]["content"] == "Done: teal"

    async def test_cancellation_leaves_no_pending_client_tool(
        self,
        agent: Backend,
        token: str,
        clients: OfficialClients,
        gateway: Gateway,
        version: str,
    ) -> None:
        """Before 1.0 a client runs its own tool for each call without a result."""
        marker = uuid4().hex
        body = run_input_without_version(
            f'call ask_colour {{}} && call lightrag_query {{"query": "{marker} fault=slow-5"}}',
            tools=[ASK_COLOUR],
        )
        following = run(clients.new(version), agent, token, body)
        await until(lambda: gateway.tool_calls(marker), seconds=30)
        await cancel(agent, token, body)
        held = await following.held()
        answered = [] if version == CURRENT else ["ask_colour", "lightrag_query"]
        assert [held.calls[call] for call in held.results] == answered


@pytest.mark.parametrize("version", [CURRENT, "0.0.59"])
class TestResumedRuns:
    async def test_cut_after_every_frame(
        self, agent: Backend, token: str, clients: OfficialClients, version: str
    ) -> None:
        """Not with 0.0.55, which duplicates a call when its start is repeated."""
        body = run_input_without_version("call ask_colour {} && say Well", tools=[ASK_COLOUR])
        whole = await run(clients.new(version), agent, token, body).held_with_faults()
        url = f"{agent.http.base_url}{events_path(body)}"
        url += "" if version == CURRENT else f"?{OLDER_PROTOCOL}"
        for frames in range(1, len(whole.ids)):
            client = clients.new(version)
            await client.follow(url, token, cut={"frames": frames}).held()
            held = await client.follow(url, token).held_with_faults()
            assert (held.failure, held.printed, held.outcome) == (None, [], "success")
            assert held.messages == whole.messages[1:]


@every_client
async def test_every_event_type_of_the_backend_is_accepted(
    clients: OfficialClients, version: str
) -> None:
    """Before 1.0 an unknown event type is fatal too."""
    events = every_event()
    types = {value for value in vars(agui).values() if value in EventType.__members__.values()}
    assert {event["type"] for event in events} == types
    frames = encode(events)
    if version != CURRENT:
        frames = translated(frames, ProtocolVersion.V0_0)
    held = await clients.new(version).play(frames).held()
    assert len(held.messages) > len(MESSAGES)


# Contains everything that a stored conversation may hold.
MESSAGES = [
    user_says("Hello"),
    {"id": "r0", "role": "reasoning", "content": "Let me think"},
    {
        "id": "a0",
        "role": "assistant",
        "toolCalls": [
            {
                "id": "c0",
                "type": "function",
                "function": {"name": "health_check", "arguments": "{}"},
            }
        ],
    },
    {
        "id": "t0",
        "role": "tool",
        "toolCallId": "c0",
        "content": [{"type": "text", "text": "All"}, {"type": "text", "text": "fine"}],
    },
    {"id": "a1", "role": "assistant", "content": "All is fine", "metadata": {"a": None}},
]


def every_event() -> list[Event]:
    """Return the events of two runs, the second of which fails."""
    stamp: Stamp = {"timestamp": 1, "metadata": {"job_id": "j"}}
    return [
        agui.run_started("t", "first", stamp),
        agui.messages_snapshot([orjson.dumps(message) for message in MESSAGES], stamp),
        agui.state_snapshot({"page": 3}, stamp),
        agui.step_started("round 1", stamp),
        *agui.reasoning_start("r1", stamp),
        agui.reasoning_content("r1", "Let me think", stamp),
        *agui.reasoning_end("r1", stamp),
        *agui.text_message("m1", "assistant", "Hello", stamp),
        *agui.tool_call("c1", "health_check", "{}", stamp),
        agui.tool_call_result("c1:result", "c1", "fine", stamp),
        agui.step_finished("round 1", stamp),
        agui.activity_snapshot("job:j", "hx.shield.job", {"percent": 50}, stamp),
        agui.activity_delta("job:j", "hx.shield.job", {"percent": 60}, stamp),
        agui.custom("hx.shield.worker", {}, stamp),
        agui.raw({"type": "unknown"}, "shield", stamp),
        agui.agent_run_finished("t", "first", {}, [], stamp),
        agui.run_started("t", "second", stamp),
        agui.run_error("failed", "code", stamp),
    ]


class TestVersion:
    @pytest.mark.parametrize(
        ("declared", "header", "query", "spoken"),
        [
            (None, None, None, None),
            ("1.0", None, None, "1.0"),
            ("1.7", None, None, "1.0"),
            ("0.9", None, None, None),
            (None, "1.0", "0.0", "1.0"),
            ("1.0", None, "0.0", None),
        ],
    )
    async def test_negotiation_for_a_run(  # noqa: PLR0913, PLR0917 - fixtures and cases
        self,
        agent: Backend,
        token: str,
        declared: str | None,
        header: str | None,
        query: str | None,
        spoken: str | None,
    ) -> None:
        """The version declared by the input.

        The header overrides the query, and both override the input.
        """
        body = run_input_without_version(
            "Hi", **({"protocolVersion": declared} if declared else {})
        )
        path = f"/agent?protocolVersion={query}" if query else "/agent"
        headers = {"AG-UI-Protocol-Version": header} if header else {}
        async with sse(agent.http, path, token=token, body=body, headers=headers) as stream:
            await stream.until_ended()
        assert stream.events[0].get("protocolVersion") == spoken

    async def test_default_of_a_stream_is_the_current_version(
        self, agent: Backend, token: str
    ) -> None:
        body = run_input_without_version("Hi")
        async with sse(agent.http, "/agent", token=token, body=body) as stream:
            await stream.until_ended()
        async with sse(agent.http, events_path(body), token=token) as stream:
            await stream.until_ended()
        assert stream.events[0]["protocolVersion"] == "1.0"

    @pytest.mark.parametrize(
        ("path", "headers", "field"),
        [
            ("/events?protocolVersion=7.0", {}, "query.protocolVersion"),
            ("/events", {"AG-UI-Protocol-Version": "latest"}, "header.AG-UI-Protocol-Version"),
            ("/api/jobs/unknown/events?protocolVersion=", {}, "query.protocolVersion"),
            ("/agent/runs/unknown/events?protocolVersion=0.0.59", {}, "query.protocolVersion"),
        ],
    )
    async def test_unsupported_version_is_refused(
        self, agent: Backend, token: str, path: str, headers: dict[str, str], field: str
    ) -> None:
        response = await agent.http.get(path, headers=bearer(token) | headers)
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error["field"] == field
        assert "1.0" in error["message"]

    async def test_malformed_version_in_the_input_is_refused(
        self, agent: Backend, token: str
    ) -> None:
        body = run_input_without_version("Hi", protocolVersion="latest")
        response = await agent.http.post("/agent", json=body, headers=bearer(token))
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error["field"] == "body.protocolVersion"
        assert "MAJOR.MINOR" in error["message"]


def shown(held: Held) -> dict[str, Any]:
    """Return a client's state; 0.0.55 drops the metadata of messages and calls."""
    return held.shown | {"messages": [_without_metadata(message) for message in held.messages]}


def _without_metadata(message: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in message.items() if name != "metadata"}
    if "toolCalls" in plain:
        plain["toolCalls"] = [_without_metadata(call) for call in plain["toolCalls"]]
    return plain


class TestJobs:
    @pytest.mark.parametrize("version", OLDER)
    async def test_live_replayed_and_feed_states_are_equal(
        self, backend: Backend, environment: Environment, clients: OfficialClients, version: str
    ) -> None:
        """An older client has the state of a current one, except for the outcome `cancelled`."""
        owner = await backend.add_user("alice@shield.test")
        token = backend.token_of(owner)
        all_jobs = every_job(str(owner.id))
        jobs = {name: all_jobs[f"{name}, {unchanged.__name__}"] for name in EVENT_SEQUENCES}
        urls = {
            name: f"{backend.http.base_url}/api/jobs/{name}, {unchanged.__name__}/events"
            for name in EVENT_SEQUENCES
        }
        older = {name: f"{url}?{OLDER_PROTOCOL}" for name, url in urls.items()}
        async with sse(backend.http, f"/events?{OLDER_PROTOCOL}", token=token) as feed:
            await environment.publish(*(events[0] for events in jobs.values()))
            await wait_until_received(environment, feed, owner)
            live = {name: clients.new(version).follow(url, token) for name, url in older.items()}
            for following in live.values():
                await following.joined()
            await environment.publish(*(event for events in jobs.values() for event in events[1:]))
            held = {name: await following.held() for name, following in live.items()}
            await wait_until_received(environment, feed, owner)
        frames = frames_by_job(feed.frames)
        for name, url in urls.items():
            current = await clients.new().follow(url, token).held()
            expected = shown(current)
            if current.outcome == "cancelled":
                expected["outcome"] = "success"
            after = await clients.new(version).follow(older[name], token).held()
            body = "".join(
                f"data: {frame.data}\n\n" for frame in frames[f"{name}, {unchanged.__name__}"]
            )
            out = await clients.new(version).play(body.encode()).held()
            for how, one in (("live", held[name]), ("after", after), ("feed", out)):
                assert (name, how, shown(one)) == (name, how, expected)

    @pytest.mark.parametrize("version", OLDER)
    @pytest.mark.parametrize("name", ["query", "ingestion that is cancelled"])
    async def test_resumed_after_every_frame(
        self,
        backend: Backend,
        environment: Environment,
        clients: OfficialClients,
        version: str,
        name: str,
    ) -> None:
        owner = await backend.add_user("alice@shield.test")
        token = backend.token_of(owner)
        job = f"{name}, {unchanged.__name__}"
        async with sse(backend.http, token=token) as feed:
            await environment.publish(*every_job(str(owner.id))[job])
            await wait_until_received(environment, feed, owner)
        url = f"{backend.http.base_url}/api/jobs/{job}/events?{OLDER_PROTOCOL}"
        whole = await clients.new(version).follow(url, token, last_event_id="0-0").held()

        async def check(frames: int) -> None:
            client = clients.new(version)
            cut = {"frames": frames}
            await client.follow(url, token, last_event_id="0-0", cut=cut).held()
            held = await client.follow(url, token).held()
            assert (frames, held.shown) == (frames, whole.shown)

        async with asyncio.TaskGroup() as group:
            for frames in range(1, len(whole.ids) + 1):
                group.create_task(check(frames))

    async def test_both_versions_are_served_at_once(
        self, backend: Backend, environment: Environment
    ) -> None:
        """One instance serves both.

        The outcome that does not exist before 1.0 is in the metadata.
        """
        owner = await backend.add_user("alice@shield.test")
        token = backend.token_of(owner)
        headers = {"AG-UI-Protocol-Version": "0.0"}
        async with (
            sse(backend.http, token=token) as current,
            sse(backend.http, token=token, headers=headers) as older,
        ):
            job = f"ingestion that is cancelled, {unchanged.__name__}"
            await environment.publish(*every_job(str(owner.id))[job])
            for stream in (current, older):
                await stream.until(lambda it: it.events and it.events[-1]["type"] in ENDS)
        assert [frame.id for frame in current.frames] == [frame.id for frame in older.frames]
        events = current.events
        first, last = events[0], events[-1]
        assert (first["protocolVersion"], last["outcome"]) == ("1.0", {"type": "cancelled"})
        del first["protocolVersion"]
        last["metadata"]["outcome"] = last.pop("outcome")
        assert older.events == events


ENDS = frozenset({"RUN_FINISHED", "RUN_ERROR"})
