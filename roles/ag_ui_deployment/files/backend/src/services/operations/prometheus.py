"""The response of GET /metrics: the metrics of this process, and the current state of the stream and the certificate."""

import asyncio
from contextlib import suppress

from redis.asyncio import Redis

from src.repositories import dead_letters as letter_rows
from src.services.consumer.group_info import group_info
from src.utils.certificates import certificate_expiry
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.metrics import Metrics
from src.utils.redis import REDIS_ERRORS

_TIMEOUT = 1.0
_UNKNOWN = float("nan")


class MetricsService:
    def __init__(  # noqa: PLR0913 - built in one place, by name
        self,
        *,
        metrics: Metrics,
        redis: Redis,
        database: Database,
        stream: str,
        group: str,
        proxy_port: int,
    ) -> None:
        """Create the service.

        Args:
            metrics: The metrics of the process.
            redis: For the state of the stream.
            database: For the dead letters.
            stream: Name of the stream.
            group: Name of the consumer group.
            proxy_port: TCP port of nginx on this host; 0 if there is none.
        """
        self._metrics = metrics
        self._proxy_port = proxy_port
        self._redis = redis
        self._database = database
        self._stream = stream
        self._group = group

    async def exposition(self) -> bytes:
        """Render all metrics. A gauge is NaN if Redis, PostgreSQL or nginx does not answer."""
        self._metrics.forget_stream()
        await asyncio.gather(
            self._set_stream_state(), self._count_dead_letters(), self._set_certificate_expiry()
        )
        return self._metrics.exposition()

    async def _set_certificate_expiry(self) -> None:
        expiry = _UNKNOWN
        if self._proxy_port:
            with suppress(OSError, ValueError):
                async with asyncio.timeout(_TIMEOUT):
                    expiry = await certificate_expiry("127.0.0.1", self._proxy_port)
        self._metrics.certificate_expiry.set(expiry)

    async def _set_stream_state(self) -> None:
        with suppress(*REDIS_ERRORS):
            async with asyncio.timeout(_TIMEOUT):
                await self._read_stream_state()

    async def _count_dead_letters(self) -> None:
        with suppress(*DATABASE_ERRORS):
            async with asyncio.timeout(_TIMEOUT), self._database.transaction() as session:
                self._metrics.dead_letters_open.set(await letter_rows.count_open(session))

    async def _read_stream_state(self) -> None:
        """Set the gauges of the stream.

        Raises:
            REDIS_ERRORS: Redis does not answer, or the stream does not exist; its length is set first.
        """
        self._metrics.stream_entries.set(await self._redis.xlen(self._stream))
        group = await group_info(self._redis, self._stream, self._group)
        if group is not None:
            self._metrics.group_lag.set(_UNKNOWN if group.lag is None else group.lag)
            self._metrics.group_pending.set(group.pending)
