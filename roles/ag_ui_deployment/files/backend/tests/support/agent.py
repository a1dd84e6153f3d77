"""A client of the agent: what it sends, and the run that it gets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx

from tests.run_checker import Run, check_run
from tests.support.agui_client import AgUiClient
from tests.support.sse import SseClient


def user_says(text: str) -> dict[str, Any]:
    return {"id": f"user-{uuid4().hex}", "role": "user", "content": text}


def run_input(text: str, **fields: Any) -> dict[str, Any]:
    """A request of a client that has said one thing."""
    ids = {"threadId": f"thread-{uuid4().hex}", "runId": f"run-{uuid4().hex}"}
    return {**ids, "messages": [user_says(text)], "tools": [], "context": [], **fields}


@asynccontextmanager
async def running_agent(
    http: httpx.AsyncClient, token: str, body: dict[str, Any]
) -> AsyncIterator[SseClient]:
    """A run that has begun; leaving the block leaves the stream, not the run."""
    headers = {"Authorization": f"Bearer {token}"}
    async with http.stream("POST", "/agent", json=body, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            raise AssertionError(f"/agent: {response.status_code} {response.text}")
        client = SseClient(response)
        reading = asyncio.create_task(client.read())
        try:
            await client.until(lambda it: it.events)
            yield client
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


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


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
