"""Brings entries to Redis, as a producer does that must not die of an outage."""

from __future__ import annotations

import threading
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis-py's own name for it
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,  # noqa: A004 - redis-py's own name for it
)
from redis.retry import Retry

from tests.shield.envelope import MAXLEN, STREAM, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OUTAGES: Final = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    OSError,
)
BACKOFF_FIRST: Final = 0.1
BACKOFF_LAST: Final = 5.0


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The publisher was told to stop before the entry was written."""


def place_of(url: str) -> str:
    """Where a Redis URL points, without user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


class Publisher:
    """XADD with the orchestrator's trimming. Waits out an absent Redis, as long as it takes."""

    def __init__(
        self,
        url: str,
        *,
        stream: str = STREAM,
        maxlen: int = MAXLEN,
        stop: threading.Event | None = None,
        notice: Callable[[str], None] = lambda _message: None,
    ) -> None:
        self.stream = stream
        self.maxlen = maxlen
        self._place = place_of(url)
        self._stop = stop or threading.Event()
        self._notice = notice
        self._jitter = Random()
        self._redis = Redis.from_url(
            url,
            protocol=2,
            socket_timeout=5,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )

    def publish(self, entry: Entry) -> str:
        """Write one entry and return its stream id.

        An answer lost on the way makes the entry come twice, with one event id: so it is with the
        orchestrator. Raises Stopped, and redis-py's AuthenticationError or ResponseError where
        trying again cannot help.
        """
        fields = entry.fields()
        wait, away = BACKOFF_FIRST, False
        while not self._stop.is_set():
            try:
                written = self._redis.xadd(
                    self.stream,
                    cast("dict[Any, Any]", fields),
                    maxlen=self.maxlen,
                    approximate=True,
                )
            except (AuthenticationError, AuthorizationError):
                raise
            except OUTAGES as error:
                if not away:
                    self._notice(f"Redis at {self._place} is away ({type(error).__name__})")
                away = True
                self._stop.wait(wait * self._jitter.uniform(0.5, 1))
                wait = min(2 * wait, BACKOFF_LAST)
            else:
                if away:
                    self._notice(f"Redis at {self._place} is back")
                return cast("bytes", written).decode()
        raise Stopped

    def publish_all(self, entries: Iterable[Entry]) -> list[str]:
        """Write entries as fast as it goes, in one pipeline; for tests, with Redis at hand."""
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipeline.xadd(
                self.stream,
                cast("dict[Any, Any]", entry.fields()),
                maxlen=self.maxlen,
                approximate=True,
            )
        return [cast("bytes", written).decode() for written in pipeline.execute()]

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
