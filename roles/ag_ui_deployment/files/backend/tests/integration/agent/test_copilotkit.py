"""CopilotKit with the agent: its frontend, and its runtime, which pins `@ag-ui/client` 0.0.59."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.agent import ASK_COLOUR, cancel, run_input_without_version, user_says
from tests.support.gateway import Gateway
from tests.support.official_client import (
    COPILOTKIT,
    Following,
    OfficialClient,
    OfficialClients,
    official_clients,
)
from tests.support.server import Backend
from tests.support.waiting import until

MAUVE = ASK_COLOUR | {"answer": "mauve"}


@pytest.fixture
async def pages() -> AsyncIterator[OfficialClients]:
    async with official_clients(program=COPILOTKIT) as started:
        yield started


def run(page: OfficialClient, backend: Backend, token: str, body: dict[str, Any]) -> Following:
    return page.run(f"{backend.http.base_url}/agent", token, body)


async def can_continue(
    page: OfficialClient, backend: Backend, token: str, body: dict[str, Any]
) -> bool:
    """Whether the conversation can continue."""
    further = body | {"runId": uuid4().hex, "messages": [user_says("And?")], "tools": []}
    held = await run(page, backend, token, further).held()
    return held.outcome == "success" and held.messages[-1]["content"] == "Echo: And?"


async def test_run_with_parallel_tools(
    backend: Backend, token: str, pages: OfficialClients
) -> None:
    body = run_input_without_version(
        'call lightrag_query {"query": "one"} && call health_check {} && say Let me see\n'
        'call qdrant_find {"query": "two"}'
    )
    page = pages.new()
    held = await run(page, backend, token, body).held()
    assert held.outcome == "success"
    assert list(held.calls.values()) == ["lightrag_query", "health_check", "qdrant_find"]
    assert held.results.keys() == held.calls.keys()
    assert held.messages[-1]["content"].startswith("Done: ")
    assert await can_continue(page, backend, token, body)


async def test_failed_run(backend: Backend, token: str, pages: OfficialClients) -> None:
    page, body = pages.new(), run_input_without_version("words 9 fault=cut")
    held = await run(page, backend, token, body).held()
    assert held.error
    assert (held.outcome, held.error["code"]) == ("error", "model_failed")
    assert await can_continue(page, backend, token, body)


async def test_cancelled_run(backend: Backend, token: str, pages: OfficialClients) -> None:
    page, body = pages.new(), run_input_without_version("words 50 fault=stall")
    following = run(page, backend, token, body)
    await following.joined()
    await cancel(backend, token, body)
    held = await following.held()
    assert (held.outcome, held.result) == ("success", None)
    assert await can_continue(page, backend, token, body)


async def test_parallel_client_tools(backend: Backend, token: str, pages: OfficialClients) -> None:
    """The page executes the tools, and starts a new run with their results."""
    body = run_input_without_version(
        'call health_check {} && call ask_colour {"among": ["mauve"]} && '
        'call ask_colour {"among": ["teal"]}',
        tools=[MAUVE],
    )
    page = pages.new()
    held = await run(page, backend, token, body).held()
    assert held.outcome == "success"
    assert list(held.calls.values()) == ["health_check", "ask_colour", "ask_colour"]
    assert list(held.results.values())[1:] == ["mauve", "mauve"]
    assert held.messages[-1]["content"] == "Done: mauve"
    assert await can_continue(page, backend, token, body)


async def test_cancelled_run_leaves_no_pending_client_tool(
    backend: Backend, token: str, pages: OfficialClients, gateway: Gateway
) -> None:
    """Otherwise the page would start another run with the results."""
    marker = uuid4().hex
    body = run_input_without_version(
        f'call ask_colour {{}} && call lightrag_query {{"query": "{marker} fault=slow-5"}}',
        tools=[MAUVE],
    )
    page = pages.new()
    following = run(page, backend, token, body)
    await until(lambda: gateway.tool_calls(marker), seconds=30)
    await cancel(backend, token, body)
    held = await following.held()
    assert held.outcome == "success"
    assert held.results.keys() == held.calls.keys()
    assert "mauve" not in held.results.values()
    assert len(await gateway.model_calls(marker)) == 1


async def test_run_stopped_by_the_page(
    backend: Backend, token: str, pages: OfficialClients
) -> None:
    """The runtime disconnects, and ends the run for the page itself."""
    props = {"onDisconnect": "cancel", "ifRunning": "cancel"}
    page, body = (
        pages.new(),
        run_input_without_version("words 50 fault=stall", forwardedProps=props),
    )
    following = run(page, backend, token, body)
    await following.joined()
    page.stop()
    held = await following.held()
    assert held.error
    assert (held.outcome, held.error["code"]) == ("error", "abort")
    assert await can_continue(page, backend, token, body)
