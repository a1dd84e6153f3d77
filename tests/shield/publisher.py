"""Writes entries to Redis and survives outages, as a producer must."""

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


class Stopped(Exception):  # noqa: N818 - a requested stop, not an error
    """The publisher was stopped before it wrote the entry."""


def address_of(url: str) -> str:
    """Return the address of a Redis URL, without user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


class Publisher:
    """Writes with XADD and the orchestrator's trimming; retries for as long as Redis is down."""

    def __init__(  # noqa: PLR0913 - keyword arguments
        self,
        url: str,
        *,
        stream: str = STREAM,
        maxlen: int = MAXLEN,
        stop: threading.Event | None = None,
        notice: Callable[[str], None] = lambda _message: None,
        redis: Redis | None = None,
    ) -> None:
        self.stream = stream
        self.maxlen = maxlen
        self._address = address_of(url)
        self._stop = stop or threading.Event()
        self._notice = notice
        self._jitter = Random()
        # A client of Sentinels, for example.
        self._redis = redis or Redis.from_url(
            url,
            protocol=2,
            socket_timeout=5,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )

    def publish(self, entry: Entry) -> str:
        """Write one entry and return its stream id.

        A lost response makes the entry appear twice with one event id, as with the orchestrator.

        Raises:
            Stopped: The stop event is set.
            AuthenticationError: Redis refuses the password, so that a retry cannot help.
            ResponseError: Redis refuses the entry, so that a retry cannot help.
        """
        fields = entry.fields()
        delay, is_down = BACKOFF_FIRST, False
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
                if not is_down:
                    self._notice(
                        f"Redis at {self._address} is unreachable ({type(error).__name__})"
                    )
                is_down = True
                self._stop.wait(delay * self._jitter.uniform(0.5, 1))
                delay = min(2 * delay, BACKOFF_LAST)
            else:
                if is_down:
                    self._notice(f"Redis at {self._address} is back")
                return cast("bytes", written).decode()
        raise Stopped

    def publish_all(self, entries: Iterable[Entry]) -> list[str]:
        """Write entries in one pipeline, without retries; for tests with a Redis that is up."""
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
        self._redis.close()
