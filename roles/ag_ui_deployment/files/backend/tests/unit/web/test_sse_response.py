"""An SSE connection: frames are sent synchronously while the server accepts them."""

import asyncio
from typing import Any

import pytest

from src.web.sse_response import HttpConnection


class Server:
    """A server's `send`, which blocks its caller while paused."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.free = asyncio.Event()
        self.free.set()
        self.left_early = 0

    async def send(self, message: Any) -> None:
        try:
            while not self.free.is_set():
                await self.free.wait()
        except BaseException:
            self.left_early += 1
            raise
        self.taken.append(message["body"])


async def test_accepted_write_needs_no_wait() -> None:
    server = Server()
    assert HttpConnection(server.send).write_now(b"a") is None
    await HttpConnection(server.send).write(b"b")
    assert server.taken == [b"a", b"b"]


async def test_blocked_write_is_awaited() -> None:
    server = Server()
    server.free.clear()
    rest = HttpConnection(server.send).write_now(b"a")
    assert rest is not None
    waiting = asyncio.ensure_future(_of(rest))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert server.taken == []
    server.free.set()
    async with asyncio.timeout(1):
        await waiting
    assert server.taken == [b"a"]


async def test_blocked_write_can_be_cancelled() -> None:
    server = Server()
    server.free.clear()
    writing = asyncio.ensure_future(HttpConnection(server.send).write(b"a"))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert server.left_early == 1
    assert server.taken == []


async def test_error_of_the_server_is_raised() -> None:
    async def send(_message: Any) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        HttpConnection(send).write_now(b"a")
    with pytest.raises(OSError, match="gone"):
        await HttpConnection(send).write(b"a")


async def _of(rest: Any) -> None:
    await rest
