"""A stream consumer with access to its metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from src.config import Settings
from src.services.consumer.event_store import EventStore
from src.services.redis_consumer import RedisStreamConsumer
from src.utils.database import Database
from src.utils.metrics import Metrics
from src.utils.redis import reader_client
from tests.support.samples import sample


class Consumer(RedisStreamConsumer):
    """A consumer whose counters a test can read."""

    def counted(self, name: str, **labels: str) -> float:
        """Return the value of the metric `ag_ui_NAME` with these labels."""
        return sample(self._metrics, f"ag_ui_{name}", **labels)

    def lost(self, how: str) -> float:
        """Return the number of lost entries for a reason (`how`)."""
        return self.counted("entries_lost_total", how=how)


@asynccontextmanager
async def consuming(settings: Settings) -> AsyncIterator[Consumer]:
    """Run a consumer for the duration of the block."""
    database = Database(settings)
    redis = reader_client(settings)
    consumer = Consumer(redis, EventStore(database), settings, Metrics())
    consumer.start()
    try:
        yield consumer
    finally:
        async with asyncio.timeout(20):
            await consumer.stop()
        await redis.aclose()
        await database.close()
