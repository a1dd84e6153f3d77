"""An SSE client over a real socket, which records each frame with its time of arrival."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from src.models.user import User
from tests.run_checker import Frame, FrameParser, events_of, job_of
from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.waiting import until


class SseClient:
    """Reads in the background. `ended` is true once the server has closed the stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.frames: list[Frame] = []
        self.times: list[float] = []
        self.body = bytearray()
        self.ended = False
        self._parser = FrameParser()

    async def read(self) -> None:
        try:
            async for chunk in self.response.aiter_raw():
                self.body += chunk
                new = self._parser.feed(chunk)
                self.frames += new
                self.times += [time.monotonic()] * len(new)
        finally:
            self.ended = True

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of all frames so far, parsed as JSON."""
        return events_of(self.frames)

    @property
    def ids(self) -> list[str]:
        """The ids of the received records."""
        return [frame.record_id for frame in self.frames if frame.record_id is not None]

    @property
    def comments(self) -> list[str]:
        return [comment for frame in self.frames for comment in frame.comments]

    async def until(self, condition: Callable[["SseClient"], object], seconds: float = 10) -> None:
        """Wait until the condition is true; fails after `seconds`."""
        await until(lambda: condition(self) or None, seconds)

    async def until_ended(self, seconds: float = 10) -> None:
        await until(lambda: self.ended, seconds)


@asynccontextmanager
async def sse(  # noqa: PLR0913 - keyword arguments
    http: httpx.AsyncClient,
    path: str = "/events",
    *,
    after: object = None,
    token: str = "",
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[SseClient]:
    """Open a stream for the duration of the block.

    Args:
        http: The HTTP client of the instance.
        path: The path of the stream.
        after: The Last-Event-ID, if any.
        token: The access token, if any.
        body: A JSON body; the request is a POST if there is one.
        headers: Further headers.
    """
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if after is not None:
        sent["Last-Event-ID"] = str(after)
    method = "GET" if body is None else "POST"
    async with http.stream(method, path, headers=sent, json=body) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            raise AssertionError(f"{path}: {response.status_code} {response.text}")
        client = SseClient(response)
        reading = asyncio.create_task(client.read())
        try:
            # The server sends the first frame, with the retry time, once the stream is open.
            await client.until(lambda it: it.frames)
            yield client
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def wait_until_received(environment: Environment, feed: SseClient, owner: User) -> None:
    """Wait until the instance behind the owner's feed has received all published events."""
    (marker,) = await environment.publish(shield_event(job="marker", user=str(owner.id)))
    await feed.until(lambda it: str(marker) in it.ids)


def frames_by_job(frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    """Group the frames of a feed by job."""
    parts: dict[str, list[Frame]] = {}
    for frame in frames:
        if frame.data is not None and (job := job_of(frame.json())):
            parts.setdefault(job, []).append(frame)
    return parts
