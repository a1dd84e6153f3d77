"""The response of GET /metrics: the metrics of this process, and the current state of the stream."""

import asyncio
from contextlib import suppress

from redis.asyncio import Redis

from src.repositories import dead_letters as letter_rows
from src.services.consumer.group_info import group_info
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.metrics import Metrics
from src.utils.redis import REDIS_ERRORS

_TIMEOUT = 1.0
_UNKNOWN = float("nan")


class MetricsService:
    def __init__(
        self, metrics: Metrics, redis: Redis, database: Database, stream: str, group: str
    ) -> None:
        self._metrics = metrics
        self._redis = redis
        self._database = database
        self._stream = stream
        self._group = group

    async def exposition(self) -> bytes:
        """Render all metrics. Gauges of the stream are NaN if Redis or PostgreSQL does not answer."""
        self._metrics.forget_stream()
        await asyncio.gather(self._read_stream(), self._count_dead_letters())
        return self._metrics.exposition()

    async def _read_stream(self) -> None:
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
