"""A TCP proxy that simulates outages of a server without affecting the server."""

import asyncio
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class TcpProxy:
    """Forwards bytes; refuse() drops and refuses connections, freeze() makes them hang."""

    def __init__(self, url: str, default_port: int) -> None:
        self._default_port = default_port
        self.forward_to(url)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._port = 0
        # All bytes that the server has sent.
        self.passed = bytearray()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.refuse()

    def forward_to(self, url: str) -> None:
        """Forward new connections to this URL.

        Open ones keep their server, as with a DNS change.
        """
        self._url = url
        parts = urlsplit(url)
        self._target = parts.hostname or "127.0.0.1", parts.port or self._default_port

    @property
    def url(self) -> str:
        """The URL of the server through the proxy."""
        parts = urlsplit(self._url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self._port}"))

    async def accept(self) -> None:
        """Accept connections and forward everything, on the same port as before."""
        self._passing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Close all connections and refuse new ones: the server is down."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def cut(self) -> None:
        """Close all connections; new ones are accepted."""
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Accept connections and forward nothing: the server hangs."""
        self._passing.clear()

    async def fail(self, fault: str) -> None:
        """Apply a fault: `refuse` or `freeze`."""
        if fault == "refuse":
            await self.refuse()
        else:
            self.freeze()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            back, upstream = await asyncio.open_connection(*self._target)
            await asyncio.gather(
                self._pump(reader, upstream), self._pump(back, writer, self.passed)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            for one in (writer, upstream):
                if one is not None:
                    one.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        passed: bytearray | None = None,
    ) -> None:
        while chunk := await source.read(65_536):
            await self._passing.wait()
            target.write(chunk)
            if passed is not None:
                passed += chunk
            await target.drain()
        with suppress(OSError):
            target.write_eof()
