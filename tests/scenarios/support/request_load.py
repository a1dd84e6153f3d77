"""Sends consecutive requests for the duration of a block and records failures."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self

from tests.scenarios.support.http import request
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.http import Route

PAUSE: Final = 0.05
"""Seconds between two requests of one client."""
STARTED_WITHIN: Final = 30.0
SERVER_ERRORS: Final = 500


class RequestLoad:
    """Clients in their own threads, each with one request at a time."""

    def __init__(self, route: Route, path: str, token: str, *, clients: int = 2) -> None:
        self._route = route
        self._path = path
        self._token = token
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self._lock = threading.Lock()
        self.answered = 0
        self.failed: list[str] = []
        """Responses with a server error (5xx), and connection errors."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.answered or self.failed, "a first answer", within=STARTED_WITHIN)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PAUSE):
            try:
                answer = request(self._route, "GET", self._path, token=self._token)
            except OSError as error:
                failure = repr(error)
            else:
                failure = repr(answer) if answer.status >= SERVER_ERRORS else ""
            with self._lock:
                self.answered += not failure
                self.failed += [failure] if failure else []
