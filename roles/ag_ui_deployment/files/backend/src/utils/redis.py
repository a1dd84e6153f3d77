"""Redis clients: one for short commands, and a separate one for each blocking reader."""

import asyncio
import random
import time
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError

from src.config import Settings

# In ms. Short, since a stopping reader waits until its blocking read returns.
BLOCK_MS = 500
_COMMAND_TIMEOUT = 3.0
_READER_TIMEOUT = 5.0
_LIMITS_TIMEOUT = 0.5
# Connections of a client that requests share. Further commands wait for a connection, since an error
# would look like an outage.
_MAX_CONNECTIONS = 50
# Few, so that commands of a burst wait for a connection (up to 3 s) instead of waiting for Redis on
# fifty connections at once, where each has half a second.
_LIMITS_CONNECTIONS = 8
_CONNECTION_TIMEOUT = 3.0

# After a failover the name resolves to another server, but open connections stay with the old one.
_CONNECTION_MAX_AGE = 60.0
# Shorter with Sentinels, since asking them is cheap: a former primary that only they cannot reach
# keeps its connections and rejects nothing.
_SENTINEL_CONNECTION_MAX_AGE = 10.0
# Timeout for one Sentinel, and how long connections share the address that one has named.
_SENTINEL_TIMEOUT = 1.0
_ADDRESS_MAX_AGE = 0.5

REDIS_ERRORS = (RedisError, OSError)


class _PrimaryConnection(Connection):
    """A connection that reconnects when it is old, or after any connection got a READONLY error.

    That error means that the server has become a replica. All connections of the process then
    reconnect, since the tailer only reads and would never get the error itself.
    """

    max_age = _CONNECTION_MAX_AGE
    _demoted_at = 0.0
    _connected_at = 0.0

    async def connect(self) -> None:
        if self.is_connected and self.should_reconnect():
            await self.disconnect()
        await super().connect()  # type: ignore[no-untyped-call]  # redis-py lacks types here

    async def _connect(self) -> None:
        self._connected_at = time.monotonic()
        await super()._connect()  # type: ignore[no-untyped-call]  # same

    def should_reconnect(self) -> bool:
        oldest = max(_PrimaryConnection._demoted_at, time.monotonic() - self.max_age)
        return self._connected_at < oldest or bool(super().should_reconnect())  # type: ignore[no-untyped-call]  # same

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*arguments, **options)
        except RuntimeError as error:
            # uvloop raises it, and not an OSError, if the server has closed the connection.
            raise RedisConnectionError(str(error)) from error

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ReadOnlyError:
            _PrimaryConnection._demoted_at = time.monotonic()
            raise


class _TlsPrimaryConnection(_PrimaryConnection, SSLConnection):
    """`_PrimaryConnection` over TLS."""


class SentinelLookup:
    """Asks the Sentinels for the primary; connections that ask at the same time share the answer."""

    def __init__(self, settings: Settings) -> None:
        password = settings.REDIS_SENTINEL_PASSWORD
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": _SENTINEL_TIMEOUT,
            "socket_connect_timeout": _SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "username": settings.REDIS_SENTINEL_USER or None,
            "password": password.get_secret_value() or None if password else None,
        }
        if settings.REDIS_URL.get_secret_value().startswith("rediss:"):
            options |= {"ssl": True, "ssl_ca_data": settings.REDIS_CA or None}
        self._sentinel = Sentinel(settings.redis_sentinels, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # redis-py lacks types here
        self._service = settings.REDIS_SENTINEL_SERVICE
        self._task: asyncio.Task[tuple[str, int]] | None = None
        self._asked_at = 0.0

    async def address(self) -> tuple[str, int]:
        """Return host and port of the primary.

        Raises:
            MasterNotFoundError: No Sentinel answers, or none knows a primary that is up.
        """
        if self._task is None or self._is_outdated(self._task):
            self._asked_at = time.monotonic()
            self._task = asyncio.create_task(self._ask(), name="sentinel-lookup")
            # All connections may have stopped waiting.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        # The timeout of one connection must not cancel the request of the others.
        return await asyncio.shield(self._task)

    def _is_outdated(self, task: asyncio.Task[tuple[str, int]]) -> bool:
        return task.done() and time.monotonic() - self._asked_at > _ADDRESS_MAX_AGE

    async def _ask(self) -> tuple[str, int]:
        try:
            host, port = await self._sentinel.discover_master(self._service)
        finally:
            await self._sentinel.aclose()
        return str(host), int(port)


class _SentinelConnection(_PrimaryConnection):
    """A connection to the primary that the Sentinels name."""

    max_age = _SENTINEL_CONNECTION_MAX_AGE

    def __init__(self, *, sentinels: SentinelLookup, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self.host, self.port = await self._sentinels.address()
        await super()._connect()


class _TlsSentinelConnection(_SentinelConnection, _TlsPrimaryConnection):
    """`_SentinelConnection` over TLS."""


Pool = TypeVar("Pool", bound=ConnectionPool)


def command_client(settings: Settings) -> Redis:
    """A client for commands that do not block, with a timeout of 3 s."""
    return Redis.from_pool(_shared(settings, _COMMAND_TIMEOUT, _MAX_CONNECTIONS))


def reader_client(settings: Settings) -> Redis:
    """A client for one reader that blocks up to BLOCK_MS.

    It never retries a command: a repeated XREADGROUP would leave the first batch pending and
    unprocessed. The reader handles the error and reads its pending entries again.
    """
    pool = ConnectionPool.from_url(
        settings.REDIS_URL.get_secret_value(),
        **_options(settings, _READER_TIMEOUT, _COMMAND_TIMEOUT),
    )
    return Redis.from_pool(_to_primary(pool, settings))


def limits_connections(settings: Settings) -> BlockingConnectionPool:
    """Connections for the rate limits, with a short timeout, since every request waits for them."""
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
    with_tls = issubclass(pool.connection_class, SSLConnection)
    if with_tls:
        pool.connection_kwargs["ssl_ca_data"] = settings.REDIS_CA or None
    if settings.REDIS_SENTINELS:
        pool.connection_kwargs["sentinels"] = SentinelLookup(settings)
        pool.connection_class = _TlsSentinelConnection if with_tls else _SentinelConnection
    else:
        pool.connection_class = _TlsPrimaryConnection if with_tls else _PrimaryConnection
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


def stream_rows(reply: Any) -> list[Row]:
    """Extract the entries from the reply to a read of one stream.

    Returns:
        Pairs of id and fields; an empty list if the read timed out.
    """
    return list(reply[0][1]) if reply else []


def row_bytes(row: Row) -> int:
    """The size of the values of an entry; 0 for one that was trimmed and has no fields."""
    return sum(map(len, row[1].values())) if row[1] else 0


class Backoff:
    """Exponential backoff with jitter, in seconds. Call reset() after a success."""

    def __init__(self, first: float = 0.01, maximum: float = 5.0) -> None:
        self._first = first
        self._maximum = maximum
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait for the next delay, or until `stop` is set."""
        delay = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._next = min(self._next * 2, self._maximum)
        try:
            async with asyncio.timeout(delay):
                await stop.wait()
        except TimeoutError:
            pass
