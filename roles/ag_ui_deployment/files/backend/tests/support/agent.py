"""Requests to the agent, and helpers to read its runs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx

from tests.run_checker import Run, check_run
from tests.support.accounts import bearer
from tests.support.agui_client import AgUiClient
from tests.support.gateway import Gateway
from tests.support.server import Backend
from tests.support.sse import SseClient, sse

# A client-side tool; CopilotKit's test page answers calls of it automatically.
ASK_COLOUR = {
    "name": "ask_colour",
    "description": "Ask the user for a colour",
    "parameters": {"type": "object", "properties": {"among": {"type": "array"}}},
}


def user_says(text: str) -> dict[str, Any]:
    return {"id": f"user-{uuid4().hex}", "role": "user", "content": text}


def run_input(text: str, **fields: Any) -> dict[str, Any]:
    """Return the request body for a new conversation with one user message."""
    ids = {"threadId": f"thread-{uuid4().hex}", "runId": f"run-{uuid4().hex}"}
    version = {"protocolVersion": "1.0"}
    return {**version, **ids, "messages": [user_says(text)], "tools": [], "context": [], **fields}


def run_input_without_version(text: str, **fields: Any) -> dict[str, Any]:
    """Like run_input(), without a protocol version unless `fields` has one."""
    body = run_input(text)
    del body["protocolVersion"]
    return body | fields


@asynccontextmanager
async def running_agent(
    http: httpx.AsyncClient, token: str, body: dict[str, Any]
) -> AsyncIterator[SseClient]:
    """Start a run; leaving the block closes the stream and does not cancel the run."""
    async with sse(http, "/agent", token=token, body=body) as client:
        await client.until(lambda it: it.events)
        yield client


async def whole_run(
    http: httpx.AsyncClient, token: str, body: dict[str, Any], seconds: float = 15
) -> list[dict[str, Any]]:
    """Run the agent to its end and return all events."""
    async with running_agent(http, token, body) as client:
        await client.until_ended(seconds)
        return client.events


def checked(events: Sequence[dict[str, Any]], **how: Any) -> tuple[Run, AgUiClient]:
    """Check a run's events; return the run and a client that has applied them."""
    return check_run(events, **how), AgUiClient().apply(events)


def text_of(client: AgUiClient) -> str:
    """Return the concatenated text of all messages."""
    return "".join(one["content"]["text"] for one in client.messages if one["kind"] == "text")


def events_path(body: dict[str, Any]) -> str:
    """Return the path of the run's event stream."""
    return f"/agent/runs/{body['runId']}/events"


async def cancel(backend: Backend, token: str, body: dict[str, Any]) -> None:
    """Cancel the run of a request; fails if that is refused."""
    path = f"/agent/runs/{body['runId']}/cancel"
    assert (await backend.http.post(path, headers=bearer(token))).status_code == 202


async def model_call_states(gateway: Gateway, marker: str) -> list[str]:
    """Return the states of the model calls whose prompt contains the marker."""
    return [call["state"] for call in await gateway.model_calls(marker)]


async def model_call_is(gateway: Gateway, marker: str, state: str) -> bool:
    """Whether there was exactly one such call, and it has this state."""
    return await model_call_states(gateway, marker) == [state]
