"""What GET /metrics tells: the counts of this process, and the state of the stream as of now."""

import asyncio
from contextlib import suppress

from redis.asyncio import Redis

from src.utils.metrics import Metrics
from src.utils.redis import REDIS_ERRORS

_TIMEOUT = 1.0
_UNKNOWN = float("nan")


class MetricsService:
    def __init__(self, metrics: Metrics, redis: Redis, stream: str, group: str) -> None:
        self._metrics = metrics
        self._redis = redis
        self._stream = stream
        self._group = group

    async def exposition(self) -> bytes:
        """Text for Prometheus. What Redis would tell is NaN where it does not answer."""
        self._metrics.forget_stream()
        with suppress(*REDIS_ERRORS):
            async with asyncio.timeout(_TIMEOUT):
                await self._ask_redis()
        return self._metrics.exposition()

    async def _ask_redis(self) -> None:
        """Raises where there is no stream, after what there is to say then."""
        self._metrics.stream_entries.set(await self._redis.xlen(self._stream))
        name = self._group.encode()
        for group in await self._redis.xinfo_groups(self._stream):
            if group["name"] == name:
                lag = group["lag"]
                self._metrics.group_lag.set(_UNKNOWN if lag is None else lag)
                self._metrics.group_pending.set(group["pending"])
