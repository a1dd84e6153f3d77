"""A server with scripted responses, for cases that the real server cannot produce."""

import asyncio
from contextlib import suppress
from typing import Any, Self

import orjson

# The head of a response that is sent byte by byte and practically never ends.
DRIPS = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"


def answer(
    status: int, body: Any = b"", content_type: str = "application/json", **headers: str
) -> bytes:
    """Return the bytes of a response; a body other than bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    fields = {
        "content-type": content_type,
        "content-length": str(len(content)),
        "connection": "close",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + content


def tool_result(result: Any) -> bytes:
    """Return the gateway's response with a tool result."""
    return answer(200, {"structuredContent": result, "content": [], "isError": False})


def tool_error(text: str) -> bytes:
    """Return the gateway's response with a tool error."""
    return answer(200, {"content": [{"type": "text", "text": text}], "isError": True})


def frames(*lines: str) -> bytes:
    """Return the gateway's response with a model's stream."""
    return answer(200, "".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream")


class ScriptedServer:
    """Answers the requests for a path in order, and repeats the last response.

    While `gate` is not set, requests wait. An empty response closes the connection.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        # The requested paths in order, without their queries.
        self.asked: list[str] = []
        self._answers: dict[str, list[bytes]] = {}
        self._open: set[asyncio.Task[None]] = set()

    def answers(self, path: str, *answers: bytes) -> None:
        """Set the responses for requests of a path, see answer()."""
        self._answers[path] = list(answers)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._write(await self._answer(reader), writer)
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _write(self, said: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        while said is DRIPS:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        request, *fields = head.split("\r\n")
        lengths = [int(one.split(":")[1]) for one in fields if one.startswith("content-length:")]
        await reader.readexactly(sum(lengths))
        path = request.split(" ")[1].split("?")[0]
        self.asked.append(path)
        await self.gate.wait()
        left = self._answers.get(path) or [answer(404, {"detail": "not scripted"})]
        return left.pop(0) if len(left) > 1 else left[0]
