"""The process that plays many browsers: `python -m tests.scenarios.support.load_client_reader`.

It is told what to do by lines of JSON, each of which it answers with one. A process of its own,
since reading for a hundred clients would take the test's thread its share of the interpreter.
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

TURN: Final = 0.02
"""Seconds: whatever arrives for a client within a turn is read at once."""


class PacedSelector(selectors.EpollSelector):
    """Looks no more often than once in a turn: reading each event by itself would cost a core."""

    def __init__(self) -> None:
        super().__init__()
        self._looked = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        rest = self._looked + TURN - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        ready = super().select(timeout)
        self._looked = time.monotonic()
        return ready


class Reader:
    """The browsers of this process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tls = server.tls()
        self._browsers: dict[str, tuple[EventSource, asyncio.Task[None]]] = {}
        self.commands: dict[str, Callable[..., dict[str, Any]]] = {
            "open": self.open,
            "look": self.look,
            "close": self.close,
        }

    def open(self, browsers: list[dict[str, Any]]) -> dict[str, Any]:
        """Let browsers in."""
        for wanted in browsers:
            source = EventSource(Browser(**wanted), self._server, self._tls)
            task = asyncio.create_task(source.run(), name=source.browser.name)
            self._browsers[source.browser.name] = (source, task)
        return {}

    def look(self) -> dict[str, Any]:
        """How each of them is doing; an error of ours ends the process."""
        for _, task in self._browsers.values():
            if task.done() and not task.cancelled():
                task.result()
        return {name: source.summary() for name, (source, _) in self._browsers.items()}

    def close(self, folder: str) -> dict[str, Any]:
        """Send them all away, and write what each of them got into a file of its name."""
        last = self.look()
        for name, (source, task) in self._browsers.items():
            task.cancel()
            (Path(folder) / name).write_bytes(source.positions.tobytes())
        self._browsers.clear()
        return last


async def serve() -> None:
    """Obey until there are no more commands."""
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
