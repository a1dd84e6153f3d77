"""The process that runs the load clients: `python -m tests.scenarios.support.load_client_reader`.

Reads commands as JSON lines and answers each with a JSON line. It is a separate process, since
reading for a hundred clients would compete with the test's thread for the GIL.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.scenarios.support.event_source import Browser, EventSource, Server

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_INTERVAL: Final = 0.02
"""Seconds: data that arrives within an interval is read together."""


class PacedSelector(selectors.EpollSelector):
    """Polls at most once per interval: reading each event separately would use a whole core."""

    def __init__(self) -> None:
        super().__init__()
        self._last_poll = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        remaining = self._last_poll + POLL_INTERVAL - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)
        ready = super().select(timeout)
        self._last_poll = time.monotonic()
        return ready


class Reader:
    """The load clients of this process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tls = server.tls()
        self._browsers: dict[str, tuple[EventSource, asyncio.Task[None]]] = {}
        self.commands: dict[str, Callable[..., dict[str, Any]]] = {
            "open": self.open,
            "stats": self.stats,
            "close": self.close,
        }

    def open(self, browsers: list[dict[str, Any]]) -> dict[str, Any]:
        """Connect browsers."""
        for wanted in browsers:
            source = EventSource(Browser(**wanted), self._server, self._tls)
            task = asyncio.create_task(source.run(), name=source.browser.name)
            self._browsers[source.browser.name] = (source, task)
        return {}

    def stats(self) -> dict[str, Any]:
        """Return the statistics of each browser; an error in the reader ends the process."""
        for _, task in self._browsers.values():
            if task.done() and not task.cancelled():
                task.result()
        return {name: source.summary() for name, (source, _) in self._browsers.items()}

    def close(self, folder: str) -> dict[str, Any]:
        """Disconnect all browsers, and write the positions of each to a file with its name."""
        last = self.stats()
        for name, (source, task) in self._browsers.items():
            task.cancel()
            (Path(folder) / name).write_bytes(source.positions.tobytes())
        self._browsers.clear()
        return last


async def serve() -> None:
    """Process commands until the input ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    reader = Reader(Server(**json.loads(await lines.readline())))
    while line := await lines.readline():
        command = json.loads(line)
        answer = reader.commands[command.pop("do")](**command)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PacedSelector())) as runner:
        runner.run(serve())
