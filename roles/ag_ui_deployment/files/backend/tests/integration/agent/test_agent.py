"""Runs of the agent through a real gateway: events, stored data, and refused requests."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from src.models.permissions import Role
from src.repositories import conversations
from src.services.agent import conversations as agent_conversations
from src.services.agent import loop as agent_loop
from src.utils.pagination import encode_cursor
from tests.run_checker import events_of, parse_frames
from tests.support.accounts import bearer
from tests.support.agent import (
    ASK_COLOUR,
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
from tests.support.server import Backend, running
from tests.support.sse import sse
from tests.support.waiting import until


def nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels - 1):
        inner = [inner]
    return inner


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "body.messages"),
    ({"threadId": "a/b"}, "body.threadId"),
    ({"runId": None}, "body.runId"),
    ({"state": nested(64)}, "body"),
    ({"context": [{"description": "\ud800", "value": ""}]}, "body"),
    (
        {"tools": [{"name": "deep", "description": "", "parameters": {"a": nested(61)}}]},
        "body",
    ),
    ({"tools": [{"name": "crawl_web", "description": ""}]}, "body.tools.0.name"),
    ({"forwardedProps": {"workspace": "\n"}}, "body.forwardedProps"),
    # Many equal errors are reported as one.
    ({"messages": [0] * 19_000}, "body.messages"),
    ({"messages": [user_says("") | {"content": [0] * 19_000}]}, "body.messages"),
    ({"messages": [user_says("") | {"content": [0] * 1000} for _ in range(9)]}, "body.messages"),
    (
        {"messages": [{"id": "1", "role": "assistant", "toolCalls": [0] * 19_000}]},
        "body.messages",
    ),
    ({"tools": [0] * 19_000}, "body.tools"),
    ({"resume": [0] * 19_000}, "body.resume"),
]


async def get(backend: Backend, path: str, token: str, status: int = 200) -> Any:
    response = await backend.http.get(path, headers=bearer(token))
    assert response.status_code == status, response.text
    return response.json()


async def post(backend: Backend, token: str, body: Any, status: int) -> Any:
    # JSON escapes characters that UTF-8 cannot encode.
    response = await backend.http.post(
        "/agent",
        content=json.dumps(body),
        headers=bearer(token) | {"Content-Type": "application/json"},
    )
    assert response.status_code == status, response.text
    return response.json()


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


class TestRuns:
    async def test_response_and_stored_conversation(
        self, backend: Backend, token: str, gateway: Gateway
    ) -> None:
        marker = uuid4().hex
        first = run_input(f"Hello {marker}", state={"page": 3}, parentRunId="before")
        events = await whole_run(backend.http, token, first)
        run, client = checked(events, complete=True)
        assert (run.run_id, run.thread_id) == (first["runId"], first["threadId"])
        assert events[0]["parentRunId"] == "before"
        assert events[1]["snapshot"] == {"page": 3}
        assert (client.outcome, text_of(client)) == ("success", f"Echo: Hello {marker}")
        (usage,) = events[-1]["usage"]
        assert usage["model"] == "shield-agent"
        assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"] > 0

        thread = await get(backend, f"/agent/threads/{first['threadId']}", token)
        said, answered = thread["messages"]
        assert said == first["messages"][0]
        assert answered["content"] == f"Echo: Hello {marker}"
        assert thread["title"] == f"Hello {marker}"
        assert [one["status"] for one in thread["runs"]] == ["finished"]

        # The client sends all its messages; known ones are not stored twice.
        again = first | {
            "runId": "second",
            "messages": [said, answered, user_says(f"And you, {marker}?")],
        }
        await whole_run(backend.http, token, again)
        thread = await get(backend, f"/agent/threads/{first['threadId']}", token)
        assert [one["role"] for one in thread["messages"]] == ["user", "assistant"] * 2
        asked = (await gateway.model_calls(f"And you, {marker}"))[0]["messages"]
        assert [one["role"] for one in asked] == ["system", "user", "assistant", "user"]
        assert '{"page":3}' in asked[0]["content"]

    async def test_run_without_messages_ends_immediately(
        self, backend: Backend, token: str, gateway: Gateway
    ) -> None:
        marker = uuid4().hex
        mounted = run_input("") | {"messages": [], "state": {"marker": marker}}
        events = await whole_run(backend.http, token, mounted)
        checked(events, complete=True)
        assert kinds(events) == ["RUN_STARTED", "STATE_SNAPSHOT", "RUN_FINISHED"]
        assert events[-1]["result"] == {"rounds": 0, "finishReason": None}
        assert await gateway.model_calls(marker) == []

        # The first message gives the conversation its title.
        said = {"runId": "second", "messages": [user_says(f"Hello {marker}")]}
        await whole_run(backend.http, token, mounted | said)
        thread = await get(backend, f"/agent/threads/{mounted['threadId']}", token)
        assert thread["title"] == f"Hello {marker}"

    async def test_repeated_message_is_stored_once_or_replaced(
        self, backend: Backend, token: str, gateway: Gateway
    ) -> None:
        marker = uuid4().hex
        first = run_input(f"Hello {marker}")
        (said,) = first["messages"]
        await whole_run(backend.http, token, first)
        # The same message twice in one request, and different content for a known id.
        corrected = said | {"content": f"Good morning {marker}"}
        again = first | {"runId": "again", "messages": [said, said, corrected]}
        events = await whole_run(backend.http, token, again)
        assert text_of(checked(events, complete=True)[1]) == f"Echo: Good morning {marker}"
        thread = await get(backend, f"/agent/threads/{first['threadId']}", token)
        assert [one["content"] for one in thread["messages"]] == [
            f"Good morning {marker}",
            f"Echo: Hello {marker}",
            f"Echo: Good morning {marker}",
        ]
        asked = (await gateway.model_calls(f"Good morning {marker}"))[0]["messages"]
        assert [one["role"] for one in asked] == ["user"]

    async def test_reasoning_and_steps(
        self, backend: Backend, token: str, gateway: Gateway
    ) -> None:
        marker = uuid4().hex
        body = run_input(f"{marker}\nthink it over\ncall health_check {{}}")
        events = await whole_run(backend.http, token, body)
        _, client = checked(events, complete=True)
        thoughts = [one["content"]["text"] for one in client.messages if one["kind"] == "reasoning"]
        assert thoughts == ["it over", "it over"]
        steps = [event for event in events if event["type"].startswith("STEP_")]
        assert [(event["type"], event["stepName"]) for event in steps] == [
            ("STEP_STARTED", "round 1"),
            ("STEP_FINISHED", "round 1"),
            ("STEP_STARTED", "round 2"),
            ("STEP_FINISHED", "round 2"),
        ]
        thread = await get(backend, f"/agent/threads/{body['threadId']}", token)
        kept = [one["role"] for one in thread["messages"]]
        assert kept == ["user", "reasoning", "assistant", "tool", "reasoning", "assistant"]
        # The conversation returns it, and the model does not receive it.
        again = {"runId": "again", "messages": [*thread["messages"], user_says(f"So, {marker}?")]}
        await whole_run(backend.http, token, body | again)
        asked = (await gateway.model_calls(f"So, {marker}"))[0]["messages"]
        assert [one["role"] for one in asked] == ["user", "assistant", "tool", "assistant", "user"]

    async def test_tools_are_executed(self, backend: Backend, token: str, gateway: Gateway) -> None:
        marker = uuid4().hex
        body = run_input(
            f'call lightrag_query {{"query": "{marker} one"}}'
            f' && call qdrant_find {{"query": "{marker} two"}}\n'
            'call no_such_tool {"a": 1}\n'
            'call crawl_web {"url": "http://127.0.0.1/"}'
        )
        events = await whole_run(backend.http, token, body)
        run, client = checked(events, complete=True)
        assert client.outcome == "success"
        # The sum over all responses.
        assert events[-1]["usage"][0]["outputTokens"] == 4 + len(text_of(client).split())
        assert len(client.calls()) == len(run.results) == 4
        assert [one["tool"] for one in await gateway.tool_calls(marker)] == [
            "lightrag_query",
            "qdrant_find",
        ]
        found, _, unknown, refused = client.results().values()
        assert f"{marker} one" in found
        assert "no such tool" in unknown
        assert refused.startswith('{"error":"url: ')
        thread = await get(backend, f"/agent/threads/{body['threadId']}", token)
        roles = [one["role"] for one in thread["messages"]]
        assert roles == [
            "user",
            "assistant",
            "tool",
            "tool",
            *["assistant", "tool"] * 2,
            "assistant",
        ]

    async def test_model_is_informed_of_unknown_outcomes(
        self, backend: Backend, token: str
    ) -> None:
        marker = uuid4().hex
        body = run_input(
            f'call qdrant_store {{"text": "{marker} fault=crash"}}\n'
            f'call qdrant_store {{"text": "{marker} fault=error"}}'
        )
        events = await whole_run(backend.http, token, body)
        _, client = checked(events, complete=True)
        crashed, refused = client.results().values()
        assert "may have done its work all the same" in crashed
        assert "may have done" not in refused

    async def test_client_tools_are_returned_to_the_client(
        self, backend: Backend, token: str, gateway: Gateway
    ) -> None:
        marker = uuid4().hex
        body = run_input(
            f'call health_check {{}} && call ask_colour {{"among": ["{marker}"]}}',
            tools=[ASK_COLOUR],
        )
        events = await whole_run(backend.http, token, body)
        asked, mine = (event for event in events if event["type"] == "TOOL_CALL_START"), events[-1]
        names = {event["toolCallName"]: event["toolCallId"] for event in asked}
        assert mine["outcome"] == {
            "type": "success",
            "pendingToolCallIds": [names["ask_colour"]],
        }
        answered = [event["toolCallId"] for event in events if "content" in event]
        assert answered == [names["health_check"]]

        thread = await get(backend, f"/agent/threads/{body['threadId']}", token)
        answer = {
            "id": "answer",
            "role": "tool",
            "toolCallId": names["ask_colour"],
            "content": "mauve",
        }
        further = body | {"runId": "further", "messages": [*thread["messages"], answer]}
        events = await whole_run(backend.http, token, further)
        _, client = checked(events, complete=True)
        assert text_of(client) == "Done: mauve"
        assert (await gateway.model_calls(marker))[-1]["state"] == "done"

    async def test_round_limit_ends_the_run(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        async with running(environment.settings(**gateway.settings(AGENT_MAX_ROUNDS=2))) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            body = run_input("loop health_check {}")
            events = await whole_run(backend.http, backend.token_of(user), body)
        _, client = checked(events)
        assert client.error
        assert client.error[1] == "too_many_rounds"
        assert kinds(events).count("TOOL_CALL_RESULT") == 1
        assert events[-1]["usage"]

    async def test_unavailable_tools_are_omitted(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        settings = gateway.settings(LITELLM_MCP_SERVER_ID="nowhere")
        async with running(environment.settings(**settings)) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            marker = uuid4().hex
            body = run_input(marker, tools=[ASK_COLOUR])
            events = await whole_run(backend.http, backend.token_of(user), body)
        assert events[-1]["outcome"] == {"type": "success"}
        (call,) = await gateway.model_calls(marker)
        assert call["tools"] == ["ask_colour"]
        assert "tools cannot be reached" in call["messages"][0]["content"]

    async def test_oversized_run_ends_with_an_error(
        self, backend: Backend, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_loop, "RUN_MAX_BYTES", 4000)
        events = await whole_run(backend.http, token, run_input("words 1000"))
        checked(events, complete=True)
        assert events[-1]["code"] == "run_too_large"

    async def test_special_characters_are_preserved(self, backend: Backend, token: str) -> None:
        said = "\0 \u2028 \U0001f642 ' OR 1=1; -- \\u0000\r\n\n data: x"
        body = run_input(said, state={"\0": [-0.0, "\x7f"]})
        for message in body["messages"]:
            message["metadata"] = {"\0": None}
        content = json.dumps(body).encode()
        response = await backend.http.post(
            "/agent", content=content, headers=bearer(token) | {"Content-Type": "application/json"}
        )
        events = events_of(parse_frames(response.content))
        _, client = checked(events, complete=True)
        assert client.outcome == "success"
        thread = await get(backend, f"/agent/threads/{body['threadId']}", token)
        assert thread["messages"][0] == body["messages"][0]

    @pytest.mark.parametrize(
        ("call", "outcome", "detail"),
        [
            ('crawl_web {"url": "https://8.8.8.8/MARKER?fault=slow-1"}', "success", "job_id"),
            ('lightrag_query {"query": "MARKER fault=slow-3"}', "failure", "reason"),
        ],
    )
    async def test_tool_calls_of_a_cancelled_run_are_audited(  # noqa: PLR0913 - fixtures and cases
        self,
        backend: Backend,
        token: str,
        gateway: Gateway,
        environment: Environment,
        *,
        call: str,
        outcome: str,
        detail: str,
    ) -> None:
        """A writing tool is executed anyway, and the job that it started has an owner."""
        marker = uuid4().hex
        body = run_input(f"call {call.replace('MARKER', marker)}")
        async with running_agent(backend.http, token, body) as stream:
            await until(lambda: gateway.tool_calls(marker))
            path = f"/agent/runs/{body['runId']}/cancel"
            assert (await backend.http.post(path, headers=bearer(token))).status_code == 202
            await stream.until_ended()
            assert stream.events[-1]["outcome"] == {"type": "cancelled"}
        query = "SELECT outcome, details::text FROM audit_log WHERE action = 'tool.call'"
        await until(lambda: environment.query(query))
        ((recorded, details),) = await environment.query(query)
        assert (recorded, sorted(json.loads(details))) == (outcome, sorted([detail, "workspace"]))
        if detail == "job_id":
            path = f"/api/jobs/{json.loads(details)['job_id']}"
            assert (await get(backend, path, token))["kind"] == "crawl"


class TestRefusals:
    async def test_invalid_input_names_the_field(self, backend: Backend, token: str) -> None:
        for changes, field in WRONG:
            problem = await post(backend, token, run_input("Hello", **changes), 422)
            assert [error["field"] for error in problem["errors"]] == [field]
        assert not backend.services.agent.runs
        parts = [{"type": "text", "text": str(number)} for number in range(1000)]
        longest = run_input("", messages=[user_says("") | {"content": parts}])
        assert (await whole_run(backend.http, token, longest))[-1]["type"] == "RUN_FINISHED"
        await backend.http.delete(f"/agent/threads/{longest['threadId']}", headers=bearer(token))
        deepest = run_input("Hello", state=nested(63))
        assert (await whole_run(backend.http, token, deepest))[-1]["type"] == "RUN_FINISHED"
        await backend.http.delete(f"/agent/threads/{deepest['threadId']}", headers=bearer(token))
        deep = b'{"state": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        response = await backend.http.post(
            "/agent", content=deep, headers=bearer(token) | {"Content-Type": "application/json"}
        )
        assert response.status_code in {400, 422}
        assert (await get(backend, "/agent/threads", token))["items"] == []

    async def test_permissions_are_required(self, backend: Backend, token: str) -> None:
        viewer = backend.token_of(await backend.add_user("viewer@shield.test"))
        await post(backend, viewer, run_input("Hello"), 403)
        elsewhere = run_input("Hello", forwardedProps={"workspace": "red"})
        await post(backend, token, elsewhere, 404)
        user = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        await backend.join(user, "red", Role.VIEWER)
        await post(backend, backend.token_of(user), elsewhere, 403)
        response = await backend.http.post("/agent", json=run_input("Hello"))
        assert response.status_code == 401

    async def test_existing_run_id(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        body = run_input("Hello")
        await whole_run(backend.http, token, body)
        assert (await post(backend, token, body, 409))["type"].endswith("run-exists")
        # Only PostgreSQL still knows the run.
        await environment.forget_runs()
        assert (await post(backend, token, body, 409))["type"].endswith("run-exists")
        other = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        # Ids are scoped to a user.
        await whole_run(backend.http, backend.token_of(other), body)

    async def test_run_limit_of_a_user(self, environment: Environment, gateway: Gateway) -> None:
        async with running(environment.settings(**gateway.settings(RUNS_PER_USER=1))) as backend:
            user = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
            token = backend.token_of(user)
            slow = run_input("words 50 fault=stall")
            async with running_agent(backend.http, token, slow):
                response = await backend.http.post(
                    "/agent", json=run_input("Hello"), headers=bearer(token)
                )
                assert response.status_code == 429
                assert response.headers["retry-after"]
                await cancel(backend, token, slow)
            await until(lambda: not backend.services.agent.runs)
            await whole_run(backend.http, token, run_input("Hello"))

    async def test_resources_of_other_users_are_hidden(self, backend: Backend, token: str) -> None:
        body = run_input("Hello")
        await whole_run(backend.http, token, body)
        run, thread = f"/agent/runs/{body['runId']}", f"/agent/threads/{body['threadId']}"
        stranger = backend.token_of(await backend.add_user("bob@shield.test", Role.CONTRIBUTOR))
        for path in (run, f"{run}/events", thread):
            await get(backend, path, stranger, 404)
        for method, path in (("POST", f"{run}/cancel"), ("DELETE", thread)):
            response = await backend.http.request(method, path, headers=bearer(stranger))
            assert response.status_code == 404
        assert (await get(backend, "/agent/threads", stranger))["items"] == []

        admin = backend.token_of(await backend.add_user("root@shield.test", Role.ADMIN))
        # Ids are scoped to a user: for those of others, the request has to name the owner.
        await get(backend, run, admin, 404)
        ((listed),) = (await get(backend, "/agent/threads", admin))["items"]
        whose = f"owner={listed['owner_id']}"
        assert (await get(backend, f"{run}?{whose}", admin))["status"] == "finished"
        await get(backend, f"{run}?{whose}", stranger, 404)
        async with sse(backend.http, f"{run}/events?{whose}", token=admin) as stream:
            await stream.until_ended()
            checked(stream.events, complete=True)


class TestWorkspaces:
    async def test_run_uses_the_role_in_its_workspace(
        self, backend: Backend, gateway: Gateway, environment: Environment
    ) -> None:
        user = await backend.add_user("carol@shield.test", Role.VIEWER)
        await backend.join(user, "red", Role.CONTRIBUTOR)
        token = backend.token_of(user)
        marker = uuid4().hex
        address = f"https://example.org/?stream={environment.stream}&m={marker}"
        body = run_input(
            f'call crawl_web {{"url": "{address}"}}', forwardedProps={"workspace": "red"}
        )
        events = await whole_run(backend.http, token, body)
        (result,) = [
            json.loads(one["content"]) for one in events if one["type"] == "TOOL_CALL_RESULT"
        ]
        job = await get(backend, f"/api/jobs/{result['job_id']}", token)
        assert (job["workspace"], job["owner_id"]) == ("red", str(user.id))
        offered = (await gateway.model_calls(marker))[0]["tools"]
        assert {"crawl_web", "lightrag_query"} <= set(offered)
        noted = await environment.query(
            "SELECT target, outcome, details FROM audit_log WHERE action = 'tool.call'"
        )
        ((target, outcome, details),) = noted
        assert (target, outcome) == ("tool:crawl_web", "success")
        assert json.loads(details)["workspace"] == "red"
        assert marker not in details

        moved = run_input("Hello", threadId=body["threadId"])
        await environment.query("UPDATE users SET role = 'contributor'")
        promoted = backend.token_of(user.model_copy(update={"role": Role.CONTRIBUTOR}))
        assert (await post(backend, promoted, moved, 409))["type"].endswith(
            "thread-in-another-workspace"
        )

    async def test_former_member_loses_access_to_active_runs(
        self, backend: Backend, environment: Environment
    ) -> None:
        user = await backend.add_user("carol@shield.test", Role.CONTRIBUTOR)
        await backend.join(user, "red", Role.CONTRIBUTOR)
        token = backend.token_of(user)
        body = run_input("words 50 fault=stall", forwardedProps={"workspace": "red"})
        async with running_agent(backend.http, token, body):
            await environment.query("DELETE FROM memberships")
            await environment.query(
                "INSERT INTO access_changes (user_id, why) VALUES ($1, 'role')", user.id
            )
            path = f"/agent/runs/{body['runId']}"
            await until(lambda: _answers(backend, f"{path}/events", token, 404))
            await get(backend, path, token, 404)
            response = await backend.http.post(f"{path}/cancel", headers=bearer(token))
            assert response.status_code == 404

    async def test_administrator_cancels_a_run_of_another_user(
        self, backend: Backend, token: str, gateway: Gateway, environment: Environment
    ) -> None:
        marker = uuid4().hex
        body = run_input(f"{marker}\nwords 50 fault=stall")
        async with running_agent(backend.http, token, body):
            await until(lambda: model_call_is(gateway, marker, "streaming"))
        owner = (await get(backend, "/auth/me", token))["id"]
        path = f"/agent/runs/{body['runId']}/cancel?owner={owner}"
        admin = backend.token_of(await backend.add_user("root@shield.test", Role.ADMIN))
        assert (await backend.http.post(path, headers=bearer(admin))).status_code == 202
        await until(lambda: model_call_is(gateway, marker, "cancelled"))
        noted = await environment.query(
            "SELECT actor, details FROM audit_log WHERE action = 'agent.cancel'"
        )
        ((actor, details),) = noted
        assert actor == "root@shield.test"
        assert json.loads(details)["owner"] == owner


class TestAudit:
    async def test_start_and_end_of_a_run_are_found_by_actor(
        self, backend: Backend, token: str
    ) -> None:
        await whole_run(backend.http, token, run_input("words 2"))
        email = (await get(backend, "/auth/me", token))["email"]
        admin = backend.token_of(await backend.add_user("root@shield.test", Role.ADMIN))

        async def found() -> list[dict[str, Any]]:
            query = f"/admin/audit?action=agent.run&actor={email}"
            items: list[dict[str, Any]] = (await get(backend, query, admin))["items"]
            return items

        async def has_ended() -> bool:
            return len(await found()) == 2

        await until(has_ended)
        end, start = await found()
        assert (start["details"]["phase"], end["details"]["phase"]) == ("start", "end")
        for key in ("actor", "actor_id", "target", "address", "request_id"):
            assert start[key] == end[key] is not None


async def _answers(backend: Backend, path: str, token: str, status: int) -> bool:
    return (await backend.http.get(path, headers=bearer(token))).status_code == status


class TestThreads:
    async def test_messages_are_paginated_from_the_newest(
        self, backend: Backend, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = run_input("Hello")
        body["messages"] = [user_says(f"{number} {'x' * 100}") for number in range(9)]
        await whole_run(backend.http, token, body)
        thread = f"/agent/threads/{body['threadId']}"
        assert (await get(backend, thread, token))["next_cursor"] is None

        async def page_sizes(limit: int) -> list[int]:
            """Return the number of messages per page, from the last page to the first."""
            sizes: list[int] = []
            messages: list[Any] = []
            cursor = ""
            while True:
                page = await get(backend, f"{thread}?limit={limit}{cursor}", token)
                sizes.append(len(page["messages"]))
                messages = page["messages"] + messages
                if page["next_cursor"] is None:
                    break
                cursor = f"&cursor={page['next_cursor']}"
                # Clients of earlier releases use these names.
                by_old_names = f"{thread}?limit={limit}&before={page['earlier']}"
                assert await get(backend, by_old_names, token) == await get(
                    backend, f"{thread}?limit={limit}{cursor}", token
                )
            assert messages[:9] == body["messages"]
            assert len(messages) == 10
            return sizes

        assert await page_sizes(4) == [4, 4, 2]
        assert await page_sizes(10) == [10]
        # A page has at least one message, however large it is.
        monkeypatch.setattr(agent_conversations, "_MESSAGES_MAX_BYTES", 1)
        assert await page_sizes(10) == [1] * 10

    async def test_thread_ids_are_scoped_to_the_owner(self, backend: Backend, token: str) -> None:
        admin = await backend.add_user("root@shield.test", Role.ADMIN)
        bodies = [run_input(said, threadId="thread-1") for said in ("Mine", "Another's")]
        for body, whose in zip(bodies, (token, backend.token_of(admin)), strict=True):
            await whole_run(backend.http, whose, body)
        mine = await get(backend, "/agent/threads/thread-1", token)
        assert mine["title"] == "Mine"
        of_admin = backend.token_of(admin)
        assert (await get(backend, "/agent/threads/thread-1", of_admin))["title"] == "Another's"
        path = f"/agent/threads/thread-1?owner={mine['owner_id']}"
        assert (await get(backend, path, of_admin))["title"] == "Mine"
        response = await backend.http.delete(path, headers=bearer(of_admin))
        assert response.status_code == 204
        await get(backend, "/agent/threads/thread-1", token, 404)
        assert (await get(backend, "/agent/threads/thread-1", of_admin))["title"] == "Another's"

    async def test_threads_are_listed_and_deleted_with_their_data(
        self, backend: Backend, token: str, environment: Environment
    ) -> None:
        bodies = [run_input(f"Hello {number}") for number in range(3)]
        for body in bodies:
            await whole_run(backend.http, token, body)
        titles = []
        path = "/agent/threads?limit=2"
        while path:
            page = await get(backend, path, token)
            titles += [one["title"] for one in page["items"]]
            path = page["next_cursor"] and f"/agent/threads?limit=2&cursor={page['next_cursor']}"
        assert titles == ["Hello 2", "Hello 1", "Hello 0"]
        for cursor in (
            "x",
            # Would be a position in this list.
            encode_cursor("jobs", "2026-01-01T00:00:00+00:00", str(UUID(int=1)), "a"),
        ):
            await get(backend, f"/agent/threads?cursor={cursor}", token, 400)

        thread = f"/agent/threads/{bodies[0]['threadId']}"
        response = await backend.http.delete(thread, headers=bearer(token))
        assert response.status_code == 204
        await get(backend, thread, token, 404)
        await get(backend, f"/agent/runs/{bodies[0]['runId']}", token, 404)
        await get(backend, f"/agent/runs/{bodies[0]['runId']}/events", token, 404)
        left = await environment.query("SELECT count(*) FROM agent_messages")
        assert left[0][0] == 4

    async def test_deletion_cancels_active_runs(
        self, backend: Backend, token: str, gateway: Gateway, environment: Environment
    ) -> None:
        marker = uuid4().hex
        body = run_input(f"words 50 fault=stall {marker}")
        async with running_agent(backend.http, token, body) as stream:
            await stream.until(lambda it: len(it.events) > 3)
            path = f"/agent/threads/{body['threadId']}"
            assert (await backend.http.delete(path, headers=bearer(token))).status_code == 204
            await stream.until_ended()
            assert stream.events[-1]["outcome"] == {"type": "cancelled"}
        await until(lambda: not backend.services.agent.runs)
        await get(backend, f"/agent/runs/{body['runId']}/events", token, 404)
        assert await environment.query("SELECT 1 FROM agent_messages") == []
        await until(lambda: model_call_is(gateway, marker, "cancelled"))

    async def test_deletion_while_a_run_is_being_stored(
        self,
        backend: Backend,
        token: str,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keep = conversations.upsert_messages
        storing = asyncio.Event()

        async def keep_late(*what: Any) -> None:
            if what[-1][0]["role"] == "assistant":
                storing.set()
                await until(environment.lock_is_awaited)
            await keep(*what)

        monkeypatch.setattr(conversations, "upsert_messages", keep_late)
        body = run_input("Hello")
        async with running_agent(backend.http, token, body) as stream:
            await storing.wait()
            path = f"/agent/threads/{body['threadId']}"
            deleted = await backend.http.delete(path, headers=bearer(token))
            assert deleted.status_code == 204, deleted.text
            await stream.until_ended()
        await until(lambda: not backend.services.agent.runs)
        assert await environment.query("SELECT 1 FROM agent_runs") == []
        await get(backend, f"/agent/runs/{body['runId']}/events", token, 404)

    async def test_deletion_while_a_run_is_starting(
        self,
        backend: Backend,
        token: str,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        begun = run_input("Hello")
        await whole_run(backend.http, token, begun)
        keep = conversations.upsert_messages
        beginning = asyncio.Event()

        async def keep_late(*what: Any) -> None:
            beginning.set()
            await until(environment.lock_is_awaited)
            await keep(*what)

        monkeypatch.setattr(conversations, "upsert_messages", keep_late)
        body = run_input("words 50 fault=stall", threadId=begun["threadId"])
        async with asyncio.TaskGroup() as group:
            run = group.create_task(whole_run(backend.http, token, body))
            await beginning.wait()
            path = f"/agent/threads/{body['threadId']}"
            deleted = await backend.http.delete(path, headers=bearer(token))
            assert deleted.status_code == 204, deleted.text
        assert run.result()[-1]["outcome"] == {"type": "cancelled"}
        await until(lambda: not backend.services.agent.runs)
        assert await environment.query("SELECT 1 FROM agent_runs") == []
        await get(backend, f"/agent/runs/{body['runId']}/events", token, 404)


class TestCapabilities:
    async def test_capabilities_list_the_permitted_tools(
        self, backend: Backend, token: str
    ) -> None:
        capabilities = await get(backend, "/agent/capabilities", token)
        assert capabilities["transport"] == {
            "streaming": True,
            "websocket": False,
            "httpBinary": False,
            "pushNotifications": False,
            "resumable": True,
        }
        items = {tool["name"]: tool for tool in capabilities["tools"]["items"]}
        assert "url" in items["crawl_web"]["parameters"]["properties"]
        viewer = backend.token_of(await backend.add_user("viewer@shield.test"))
        capabilities = await get(backend, "/agent/capabilities", viewer)
        assert "crawl_web" not in {tool["name"] for tool in capabilities["tools"]["items"]}


async def test_frame_ids_are_sequential(backend: Backend, token: str) -> None:
    body = run_input("Hello")
    response = await backend.http.post("/agent", json=body, headers=bearer(token))
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = [frame for frame in parse_frames(response.content) if frame.data]
    assert [frame.id for frame in frames] == [f"{n}-0" for n in range(1, len(frames) + 1)]
    path = f"/agent/runs/{body['runId']}/events"
    async with sse(backend.http, path, token=token) as stream:
        await stream.until_ended()
        assert [frame for frame in stream.frames if frame.data] == frames
    ticket = (await backend.http.post("/auth/ticket", headers=bearer(token))).json()["ticket"]
    async with sse(backend.http, f"{path}?ticket={ticket}&last_event_id=1-0") as stream:
        await stream.until_ended()
        assert [frame for frame in stream.frames if frame.id] == frames[1:]
