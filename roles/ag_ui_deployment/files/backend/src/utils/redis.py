"""Redis clients: one for short commands, and one of its own for each blocking reader."""

import asyncio
import random
import time
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError

from src.config import Settings

# Short, since a reader that is asked to stop first lets its block run out.
BLOCK_MS = 500
_COMMAND_TIMEOUT = 3.0
_READER_TIMEOUT = 5.0
_LIMITS_TIMEOUT = 0.5
# The connections of a client that requests share. More commands than that at once wait for one:
# refused, they would look like an outage.
_MAX_CONNECTIONS = 50
# Few: a burst of requests then waits for a connection, and not on fifty of them at once, where each
# has half a second.
_LIMITS_CONNECTIONS = 8
_CONNECTION_TIMEOUT = 3.0

# After a failover a name leads to another server; a connection knows only the old one.
_CONNECTION_MAX_AGE = 60.0

REDIS_ERRORS = (RedisError, OSError)


class _PrimaryConnection(Connection):
    """Is made anew when it is old, or once any connection has been refused a write by a replica.

    The server that answers so was the primary when the connection was made. All connections of the
    process are renewed then: the tail only reads, and would never notice by itself.
    """

    _demoted_at = 0.0
    _connected_at = 0.0

    async def connect(self) -> None:
        if self.is_connected and self.should_reconnect():
            await self.disconnect()
        await super().connect()  # type: ignore[no-untyped-call]  # redis-py has no types here

    async def _connect(self) -> None:
        self._connected_at = time.monotonic()
        await super()._connect()  # type: ignore[no-untyped-call]  # nor here

    def should_reconnect(self) -> bool:
        oldest = max(_PrimaryConnection._demoted_at, time.monotonic() - _CONNECTION_MAX_AGE)
        return self._connected_at < oldest or bool(super().should_reconnect())  # type: ignore[no-untyped-call]  # nor here

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ReadOnlyError:
            _PrimaryConnection._demoted_at = time.monotonic()
            raise


class _TlsPrimaryConnection(_PrimaryConnection, SSLConnection):
    """The same over TLS."""


Pool = TypeVar("Pool", bound=ConnectionPool)


def command_client(settings: Settings) -> Redis:
    """For commands that answer at once; fails after 3 s when Redis does not."""
    return Redis.from_pool(_shared(settings, _COMMAND_TIMEOUT, _MAX_CONNECTIONS))


def reader_client(settings: Settings) -> Redis:
    """For one reader that blocks up to BLOCK_MS.

    It never repeats a command by itself: a repeated XREADGROUP leaves the first batch pending
    with nobody reading it. The reader handles the error and looks at its pending entries.
    """
    pool = ConnectionPool.from_url(
        settings.REDIS_URL.get_secret_value(),
        **_options(settings, _READER_TIMEOUT, _COMMAND_TIMEOUT),
    )
    return Redis.from_pool(_to_primary(pool, settings))


def limits_connections(settings: Settings) -> BlockingConnectionPool:
    """For counting requests: each of them waits for the answer, so not for long."""
    return _shared(settings, _LIMITS_TIMEOUT, _LIMITS_CONNECTIONS)


def _shared(settings: Settings, timeout: float, connections: int) -> BlockingConnectionPool:
    pool = BlockingConnectionPool.from_url(
        settings.REDIS_URL.get_secret_value(),
        max_connections=connections,
        timeout=_CONNECTION_TIMEOUT,
        **_options(settings, timeout, timeout),
    )
    return _to_primary(pool, settings)


def _to_primary(pool: Pool, settings: Settings) -> Pool:
    if issubclass(pool.connection_class, SSLConnection):
        pool.connection_class = _TlsPrimaryConnection
        pool.connection_kwargs["ssl_ca_data"] = settings.REDIS_CA or None
    else:
        pool.connection_class = _PrimaryConnection
    return pool


def _options(settings: Settings, timeout: float, connect_timeout: float) -> dict[str, Any]:
    return {
        "decode_responses": False,
        "protocol": 2,
        "socket_timeout": timeout,
        "socket_connect_timeout": connect_timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "client_name": settings.REDIS_CONSUMER_NAME,
    }


Row = tuple[bytes, dict[bytes, bytes]]


def stream_rows(answer: Any) -> list[Row]:
    """The entries of the one stream that was read: ids and fields, empty if there are none."""
    return list(answer[0][1]) if answer else []


class Backoff:
    """Waits of 10 ms to 5 s, doubling, with jitter; reset() after a success."""

    def __init__(self, first: float = 0.01, maximum: float = 5.0) -> None:
        self._first = first
        self._maximum = maximum
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait the next delay, or less if `stop` is set meanwhile."""
        delay = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        self._next = min(self._next * 2, self._maximum)
        try:
            async with asyncio.timeout(delay):
                await stop.wait()
        except TimeoutError:
            pass
