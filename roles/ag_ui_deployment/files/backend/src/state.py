"""The parts of the running application, and how they hang together."""

import asyncio
from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.config import Settings
from src.services.auth_service import AuthService
from src.services.event_fold import StreamFold
from src.services.event_history import EventHistory
from src.services.event_hub import EventHub
from src.services.event_store import EventStore
from src.services.event_stream import EventStreams
from src.services.event_tail import EventTail
from src.services.health_service import HealthService
from src.services.job_service import JobService
from src.services.readiness_service import ReadinessService
from src.services.redis_consumer import ConsumerConfig, RedisStreamConsumer
from src.services.tokens import Tokens
from src.utils.database import Database
from src.utils.redis import command_client, reader_client


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    database: Database
    clients: tuple[Redis, ...]
    hub: EventHub
    tail: EventTail
    consumer: RedisStreamConsumer
    streams: EventStreams
    auth: AuthService
    jobs: JobService
    health: HealthService
    readiness: ReadinessService

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """Make all parts. Nothing connects before start()."""
        database = Database(settings)
        commands = command_client(settings)
        tail_reader = reader_client(settings)
        group_reader = reader_client(settings)
        stream, max_bytes = settings.REDIS_STREAM_NAME, settings.EVENT_MAX_BYTES
        history = EventHistory(commands, database, stream, max_bytes)
        hub = EventHub(settings, StreamFold(history.of_jobs))
        tail = EventTail(tail_reader, history, hub, stream, max_bytes)
        consumer = RedisStreamConsumer(
            group_reader, EventStore(database), ConsumerConfig.of(settings)
        )
        return cls(
            settings=settings,
            database=database,
            clients=(commands, tail_reader, group_reader),
            hub=hub,
            tail=tail,
            consumer=consumer,
            streams=EventStreams(hub, history, settings.SSE_RETRY_MS),
            auth=AuthService(database, Tokens(settings)),
            jobs=JobService(database, hub),
            health=HealthService(settings.APP_NAME, commands, database, consumer, tail),
            readiness=ReadinessService(database, hub),
        )

    def start(self) -> None:
        """Begin to read the stream; outages at this moment are waited out."""
        self.tail.start()
        self.consumer.start()

    async def stop(self) -> None:
        self.hub.drain()
        await asyncio.gather(self.consumer.stop(), self.tail.stop())
        for client in self.clients:
            await client.aclose()
        await self.database.close()
