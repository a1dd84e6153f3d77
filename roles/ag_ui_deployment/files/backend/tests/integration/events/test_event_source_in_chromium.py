"""A browser's EventSource resumes where it was, whatever it has received."""

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from playwright.async_api import Page

from src.models.permissions import Role
from src.models.user import User
from src.services.events.errors import DrainingError
from tests.run_checker import check_run
from tests.support.agent import events_path, run_input, running_agent
from tests.support.agui_client import AgUiClient
from tests.support.builders import JOB, shield_event
from tests.support.chromium import chromium
from tests.support.environment import Environment
from tests.support.examples import example
from tests.support.proxy import TcpProxy
from tests.support.scripted import ScriptedServer, answer, frames
from tests.support.server import PASSWORD, Backend, running
from tests.support.waiting import until

_KEEP_ALIVE = b": keep-alive\n"
TYPES = [
    "RUN_STARTED",
    "ACTIVITY_SNAPSHOT",
    "ACTIVITY_DELTA",
    "TOOL_CALL_START",
    "TOOL_CALL_ARGS",
    "TOOL_CALL_END",
    "TOOL_CALL_RESULT",
    "TEXT_MESSAGE_START",
    "TEXT_MESSAGE_CONTENT",
    "TEXT_MESSAGE_END",
    "RUN_FINISHED",
]
FOLLOW = """([path, types]) => {
  window.events = [];
  window.source = new EventSource(path);
  source.onmessage = () => events.push('{"type": "nameless"}');
  for (const type of types) {
    source.addEventListener(type, (message) => {
      events.push(message.data);
      if (type === "RUN_FINISHED") source.close();
    });
  }
}"""

LOG_IN = """async ([email, password]) => {
  const answer = await fetch("/auth/login", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({email, password, cookies: true}),
  });
  return answer.status;
}"""


@pytest.fixture
async def model() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        said = '{"choices": [{"delta": {"content": "Fine."}, "finish_reason": "stop"}]}'
        server.answers("/v1/chat/completions", frames(said, "[DONE]"))
        server.answers("/mcp-rest/tools/list", answer(200, {"tools": []}))
        yield server


@pytest.fixture
async def backend(environment: Environment, model: ScriptedServer) -> AsyncIterator[Backend]:
    settings = environment.settings(
        SSE_KEEPALIVE_SECONDS=1, SSE_RETRY_MS=100, LITELLM_URL=model.url
    )
    async with running(settings) as instance:
        yield instance


@dataclass
class Browser:
    """A browser that follows a stream, and the proxy to its backend."""

    page: Page
    proxy: TcpProxy
    user: User
    # The last event ids of its stream requests.
    cursors: list[str | None]

    async def follow(self, path: str) -> None:
        await self.page.evaluate(FOLLOW, [path, TYPES])
        await until(lambda: self.cursors)

    async def events(self) -> list[dict[str, Any]]:
        found: list[str] = await self.page.evaluate("events")
        return [json.loads(data) for data in found]

    async def wait_until_read(self, text: str) -> None:
        """Wait until the browser has been sent this text, and was idle afterwards."""
        await until(lambda: text.encode() in self.proxy.passed, 30)
        heard = self.proxy.passed.count(_KEEP_ALIVE)
        await until(lambda: self.proxy.passed.count(_KEEP_ALIVE) > heard, 30)

    async def reconnect(self) -> str | None:
        """Close the stream; return the last event id of the reconnect."""
        times = len(self.cursors)
        await self.proxy.cut()
        await until(lambda: len(self.cursors) > times, 30)
        return self.cursors[times]

    async def wait_for_end(self) -> AgUiClient:
        """Wait for the end of the run; return what the page has then."""

        async def has_ended() -> bool:
            return bool(await self.page.evaluate("source.readyState === EventSource.CLOSED"))

        await until(has_ended, 30)
        return AgUiClient().apply(await self.events())


@pytest.fixture
async def browser(backend: Backend) -> AsyncIterator[Browser]:
    """A browser on a page of the backend's origin, logged in with cookies."""
    user = await backend.add_user("browser@shield.test", Role.CONTRIBUTOR)
    cursors: list[str | None] = []

    async def serve(real: Any, subscription: Any, connection: Any) -> None:
        cursors.append(subscription.cursor and str(subscription.cursor))
        await real(subscription, connection)

    async with TcpProxy(str(backend.http.base_url), 80) as proxy, chromium() as started:
        page = started.page
        await page.goto(f"{proxy.url}/health/live")
        assert await page.evaluate(LOG_IN, [user.email, PASSWORD]) == 200
        with ExitStack() as patches:
            for streams in (backend.services.events.streams, backend.services.agent.streams):
                spy = partial(serve, streams.serve)
                patches.enter_context(patch.object(streams, "serve", spy))
            yield Browser(page, proxy, user, cursors)


@pytest.mark.parametrize("path", ["/events", f"/api/jobs/{JOB}/events"])
async def test_snapshot_is_sent_once_and_the_stream_resumes(
    environment: Environment, browser: Browser, path: str
) -> None:
    call = {"tool_call_id": "call", "tool_name": "crawl_web", "arguments": {"depth": 1}}
    owner = str(browser.user.id)
    ids = await environment.publish(
        shield_event("job:queued", user=owner), shield_event("tool:start", call, user=owner)
    )
    await until(environment.settled)
    await browser.follow(path)
    await browser.wait_until_read(f"id: {ids[-1]}\n\n")
    assert await browser.reconnect() == str(ids[-1])
    await environment.publish(
        shield_event("tool:complete", {**call, "result": 1}, user=owner),
        shield_event("job:complete", user=owner),
    )
    client = await browser.wait_for_end()
    assert client.outcome == "success"
    assert client.calls() == {"call": {"name": "crawl_web", "arguments": '{"depth":1}'}}
    assert list(client.results()) == ["res:call"]


async def test_events_during_a_disconnect_are_delivered(
    environment: Environment, backend: Backend, browser: Browser
) -> None:
    """The stream was empty when the connection was cut: no event has ever arrived."""
    await browser.follow("/events")
    await browser.wait_until_read(f"id: {backend.services.events.hub.last_id}\n\n")
    await browser.proxy.refuse()
    owner = str(browser.user.id)
    ids = await environment.publish(
        shield_event("job:queued", user=owner), shield_event("job:complete", user=owner)
    )
    await until(lambda: backend.services.events.hub.last_id == ids[-1])
    await browser.proxy.accept()
    assert (await browser.wait_for_end()).outcome == "success"
    assert check_run(await browser.events(), complete=True).run_id == JOB


async def test_documented_code_reconnects_after_an_http_error(
    environment: Environment, backend: Backend, browser: Browser
) -> None:
    await browser.page.evaluate(
        f"""() => {{ {example("js", "Streams")}
        window.events = [];
        window.source = new EventSource("/events");
        follow("/events", (event) => events.push(JSON.stringify(event)), () => events.push("out")); }}"""
    )
    await until(lambda: len(browser.cursors) == 2)
    owner = str(browser.user.id)
    ids = await environment.publish(shield_event("job:queued", user=owner))
    await browser.wait_until_read(f"id: {ids[-1]}\n")
    with patch.object(backend.services.events.stream_server, "check", side_effect=DrainingError):
        await browser.proxy.cut()

        async def is_closed() -> bool:
            closed = "source.readyState === EventSource.CLOSED"
            return bool(await browser.page.evaluate(closed))

        await until(is_closed, 30)
        await environment.publish(shield_event("job:complete", user=owner))
    await until(lambda: len(browser.cursors) == 3, 60)
    assert browser.cursors[-1] == str(ids[-1])

    async def has_ended() -> bool:
        return "RUN_FINISHED" in {event["type"] for event in await browser.events()}

    await until(has_ended, 30)
    assert len(browser.cursors) == 3


async def test_keep_alives_advance_the_cursor(environment: Environment, browser: Browser) -> None:
    await browser.follow("/events")
    ids = await environment.publish(shield_event("worker.started", job=None))
    await browser.wait_until_read(f": keep-alive\nid: {ids[-1]}\n\n")
    assert await browser.reconnect() == str(ids[-1])
    assert await browser.events() == []


async def test_agent_run_resumes(backend: Backend, browser: Browser, model: ScriptedServer) -> None:
    model.gate.clear()
    body = run_input("Are you fine?")
    token = backend.token_of(browser.user)
    async with running_agent(backend.http, token, body):
        await browser.follow(events_path(body))
        await browser.wait_until_read("id: 1-0\n")
        assert await browser.reconnect() == "1-0"
        model.gate.set()
        client = await browser.wait_for_end()
    assert client.outcome == "success"
    assert [one["content"]["text"] for one in client.messages] == ["Fine."]
