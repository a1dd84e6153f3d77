"""Builds the consumer group and its administration."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.config import Settings
from src.services.audit_logger import AuditLogger
from src.services.consumer.dead_letters import DeadLetterService
from src.services.consumer.event_store import EventStore
from src.services.consumer.stream_status import StreamStatusService
from src.services.redis_consumer import RedisStreamConsumer
from src.utils.database import Database
from src.utils.metrics import Metrics
from src.utils.redis import reader_client


@dataclass(frozen=True, slots=True)
class Consumer:
    """`reader` is the Redis client of `task`, which stores the entries."""

    task: RedisStreamConsumer
    dead_letters: DeadLetterService
    overview: StreamStatusService
    reader: Redis

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        database: Database,
        redis: Redis,
        audit: AuditLogger,
        metrics: Metrics,
    ) -> Self:
        stream, group = settings.REDIS_STREAM_NAME, settings.REDIS_CONSUMER_GROUP
        reader = reader_client(settings)
        return cls(
            task=RedisStreamConsumer(reader, EventStore(database), settings, metrics),
            dead_letters=DeadLetterService(database, redis, stream, audit),
            overview=StreamStatusService(database, redis, stream, group),
            reader=reader,
        )
