"""Builds the streams of Shield's events for clients."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.config import Settings
from src.services.auth.stream_registry import StreamRegistry
from src.services.events.history import EventHistory
from src.services.events.hub import EventHub
from src.services.events.job_projector import JobProjector
from src.services.events.replay import EventReplay
from src.services.events.stream_server import StreamServer
from src.services.events.stream_tailer import StreamTailer
from src.services.events.streams import EventStreams
from src.utils.database import Database
from src.utils.metrics import Metrics
from src.utils.redis import reader_client


@dataclass(frozen=True, slots=True)
class Events:
    """`reader` is the Redis client of the tailer."""

    hub: EventHub
    tailer: StreamTailer
    stream_server: StreamServer
    streams: EventStreams
    reader: Redis

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        database: Database,
        redis: Redis,
        open_streams: StreamRegistry,
        metrics: Metrics,
    ) -> Self:
        stream, max_bytes = settings.REDIS_STREAM_NAME, settings.EVENT_MAX_BYTES
        reader = reader_client(settings)
        history = EventHistory(redis, database, stream, max_bytes)
        hub = EventHub(settings, JobProjector(history.job_events))
        replay = EventReplay(history, settings.REPLAYS_MAX)
        server = StreamServer(hub, open_streams, metrics, settings)
        return cls(
            hub=hub,
            tailer=StreamTailer(reader, history, hub, metrics, stream=stream, max_bytes=max_bytes),
            stream_server=server,
            streams=EventStreams(server, hub, replay, metrics, settings.SSE_KEEPALIVE_SECONDS),
            reader=reader,
        )
