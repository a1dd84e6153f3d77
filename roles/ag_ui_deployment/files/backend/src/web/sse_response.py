"""The HTTP side of an event stream: a response whose body is written as it comes about."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, cast

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

# Where the server's own `send` stands in the scope: middleware has no business with body chunks.
SERVER_SEND = "ag_ui.server_send"


class HttpConnection:
    """Hands frames to the server: at once, where it takes them."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def write_now(self, frames: bytes) -> Awaitable[None] | None:
        """Hand frames over; gives what has to be awaited before the next, None if nothing.

        A server has to wait only for a client that does not keep up. Waking a task just to find
        that there is nothing to wait for would cost as much as the write.
        """
        message = {"type": "http.response.body", "body": frames, "more_body": True}
        sending = cast("Coroutine[Any, Any, None]", self._send(message))
        try:
            awaited = sending.send(None)
        except StopIteration:
            return None
        return _Begun(sending, awaited)

    async def write(self, frames: bytes) -> None:
        rest = self.write_now(frames)
        if rest is not None:
            await rest


class _Begun:
    """The rest of a coroutine that has run up to the first thing that it awaits."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            yield self._awaited
        except BaseException:
            self._coroutine.close()
            raise
        yield from self._coroutine.__await__()


class EventStreamResponse(EventSourceResponse):
    """sse-starlette's response (its headers, its answer to HEAD) with a leaner way for the body.

    `serve` is given the connection to write to, and returns when the stream is over. It is
    cancelled when the client leaves. A stream costs one task beside the request's own instead of
    five, and keep-alives and time limits are the business of `serve`, which has one clock for them.
    """

    # Of the class, for the OpenAPI document.
    media_type = "text/event-stream"

    def __init__(self, serve: Callable[[HttpConnection], Awaitable[None]]) -> None:
        super().__init__(_nothing(), sep="\n")
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        connection = HttpConnection(scope.get(SERVER_SEND, send))
        serving = asyncio.ensure_future(self._serve(connection))
        leaving = asyncio.ensure_future(_client_left(receive))
        try:
            await asyncio.wait((serving, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (serving, leaving):
                task.cancel()
            await asyncio.gather(serving, leaving, return_exceptions=True)
        if not serving.cancelled():
            serving.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for part in empty:
        yield part
