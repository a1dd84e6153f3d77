"""The HTTP response of an event stream, whose body is written incrementally."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, cast

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

# Scope key of the server's own `send`, with which body chunks bypass the middleware.
SERVER_SEND = "ag_ui.server_send"


class HttpConnection:
    """Passes frames to the server, without waiting if it accepts them at once."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def write_now(self, frames: bytes) -> Awaitable[None] | None:
        """Writes frames without waiting.

        A server waits only for a client that does not keep up. Waking a task that has nothing to
        wait for would cost as much as the write.

        Returns:
            An awaitable that must be awaited before the next write; None if the server accepted
                everything.
        """
        message = {"type": "http.response.body", "body": frames, "more_body": True}
        sending = cast("Coroutine[Any, Any, None]", self._send(message))
        try:
            awaited = sending.send(None)
        except StopIteration:
            return None
        return _StartedCoroutine(sending, awaited)

    async def write(self, frames: bytes) -> None:
        remainder = self.write_now(frames)
        if remainder is not None:
            await remainder


class _StartedCoroutine:
    """The rest of a coroutine that has run until it first suspended."""

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
    """sse-starlette's response (its headers, its answer to HEAD) with fewer tasks for the body.

    `serve` gets the connection to write to, and returns when the stream ends. It is cancelled when
    the client disconnects. It is responsible for keep-alives and time limits, for which it needs
    only one timer.
    """

    # On the class, where FastAPI reads it for the OpenAPI document.
    media_type = "text/event-stream"

    def __init__(self, serve: Callable[[HttpConnection], Awaitable[None]]) -> None:
        super().__init__(_empty_body(), sep="\n")
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        connection = HttpConnection(scope.get(SERVER_SEND, send))
        serving = asyncio.ensure_future(self._serve(connection))
        disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait((serving, disconnect), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (serving, disconnect):
                task.cancel()
            await asyncio.gather(serving, disconnect, return_exceptions=True)
        if not serving.cancelled():
            serving.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _empty_body() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for part in empty:
        yield part
