"""A client of the agent: what it sends, and the run that it gets."""

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

# A tool of the client; CopilotKit's page answers a call of it by itself.
ASK_COLOUR = {
    "name": "ask_colour",
    "description": "Ask the user for a colour",
    "parameters": {"type": "object", "properties": {"among": {"type": "array"}}},
}


def user_says(text: str) -> dict[str, Any]:
    return {"id": f"user-{uuid4().hex}", "role": "user", "content": text}


def run_input(text: str, **fields: Any) -> dict[str, Any]:
    """A request of a client that has said one thing."""
    ids = {"threadId": f"thread-{uuid4().hex}", "runId": f"run-{uuid4().hex}"}
    version = {"protocolVersion": "1.0"}
    return {**version, **ids, "messages": [user_says(text)], "tools": [], "context": [], **fields}


def undeclared(text: str, **fields: Any) -> dict[str, Any]:
    """The same for a client that says by itself which version of the protocol it speaks, if any."""
    body = run_input(text)
    del body["protocolVersion"]
    return body | fields


@asynccontextmanager
async def running_agent(
    http: httpx.AsyncClient, token: str, body: dict[str, Any]
) -> AsyncIterator[SseClient]:
    """A run that has begun; leaving the block leaves the stream, not the run."""
    async with sse(http, "/agent", token=token, body=body) as client:
        await client.until(lambda it: it.events)
        yield client


async def whole_run(
    http: httpx.AsyncClient, token: str, body: dict[str, Any], seconds: float = 15
) -> list[dict[str, Any]]:
    """All events of a run that is followed to its end."""
    async with running_agent(http, token, body) as client:
        await client.until_ended(seconds)
        return client.events


def checked(events: Sequence[dict[str, Any]], **how: Any) -> tuple[Run, AgUiClient]:
    """The run as the judge knows it, and what a client holds of it."""
    return check_run(events, **how), AgUiClient().apply(events)


def text_of(client: AgUiClient) -> str:
    """Everything that the model said."""
    return "".join(one["content"]["text"] for one in client.messages if one["kind"] == "text")


def events_path(body: dict[str, Any]) -> str:
    return f"/agent/runs/{body['runId']}/events"


async def cancel(backend: Backend, token: str, body: dict[str, Any]) -> None:
    path = f"/agent/runs/{body['runId']}/cancel"
    assert (await backend.http.post(path, headers=bearer(token))).status_code == 202


async def states(gateway: Gateway, marker: str) -> list[str]:
    """How far the model's answers came that were asked for with a text."""
    return [call["state"] for call in await gateway.model_calls(marker)]


async def were(gateway: Gateway, marker: str, state: str) -> bool:
    """Whether there was one, and came so far."""
    return await states(gateway, marker) == [state]
