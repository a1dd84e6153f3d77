"""Many concurrent SSE clients in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.scenarios.support.event_source import Browser, Server

REPOSITORY: Final = Path(__file__).parents[3]
ANSWER_WITHIN: Final = 30.0


@dataclass(frozen=True)
class ClientResult:
    """The result of a browser: its statistics, and the positions of the events it received."""

    stats: Mapping[str, Any]
    positions: array[int]


class LoadClients:
    """Controls the process; `open` may be called at any time."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.support.load_client_reader"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(asdict(self._server))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, browsers: Iterable[Browser]) -> None:
        """Connect browsers."""
        self._ask("open", browsers=[asdict(browser) for browser in browsers])

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return the statistics of each browser by name."""
        return self._ask("stats")

    def close(self) -> dict[str, ClientResult]:
        """Disconnect all browsers; return the result of each by name."""
        with TemporaryDirectory() as folder:
            last = self._ask("close", folder=folder)
            return {
                name: ClientResult(stats, array("q", (Path(folder) / name).read_bytes()))
                for name, stats in last.items()
            }

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdout
        self._tell({"do": command, **arguments})
        timer = threading.Timer(ANSWER_WITHIN, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert line, f"the process of the clients has ended or hangs ({command})"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(message)}\n")
        self._process.stdin.flush()
