"""The tail: one reader of the whole stream per process, for the clients of this process."""

import asyncio
from collections.abc import Sequence

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from src.models.event import ShieldEvent, StreamId
from src.services.event_history import EventHistory
from src.services.event_hub import EventHub
from src.services.event_parser import parse_entry
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS
from src.utils.redis import BLOCK_MS, REDIS_ERRORS, Backoff, stream_rows

logger = structlog.get_logger(__name__)

_BATCH = 256
_END = StreamId(2**63 - 1, 2**63 - 1)
_RECALL_TIMEOUT = 2.0
_RECALL_PAUSE = 5.0


class EventTail(BackgroundTask):
    """Follows the stream from where the hub stands; after an outage it catches up first."""

    def __init__(
        self, redis: Redis, history: EventHistory, hub: EventHub, stream: str, max_bytes: int
    ) -> None:
        super().__init__("event-tail")
        self._redis = redis
        self._history = history
        self._hub = hub
        self._stream = stream
        self._max_bytes = max_bytes
        self._recall_again_at = 0.0

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._catch_up()
                self.status = "following"
                backoff.reset()
                await self._follow()
            except REDIS_ERRORS as error:
                self.status = "waiting for Redis"
                logger.warning("tail_interrupted", error=str(error), after=str(self._hub.last_id))
                await backoff.wait(self._stop)

    async def _catch_up(self) -> None:
        """Publish what the stream holds above the hub's last id, then let clients attach."""
        if not self._hub.started.is_set():
            self._hub.start(await self._history.retained_above())
        try:
            if not self._hub.started.is_set():
                # The floor itself may be the id of an entry that Redis has let go.
                await self._recall(await self._history.active_jobs(), self._hub.floor.next())
            async for events in self._history.pages(self._hub.last_id, _END):
                await self._publish(events, events[-1].id)
        except RedisError:
            raise
        except DATABASE_ERRORS as error:
            # Without PostgreSQL the live stream goes on, from what Redis still has.
            logger.warning("tail_history_unavailable", error=str(error))
        self._hub.started.set()

    async def _follow(self) -> None:
        while not self._stop.is_set():
            answer = await self._redis.xread(
                {self._stream: str(self._hub.last_id)}, count=_BATCH, block=BLOCK_MS
            )
            entries = [
                parse_entry(StreamId.parse(row_id.decode()), fields, self._max_bytes)
                for row_id, fields in stream_rows(answer)
            ]
            if entries:
                events = [entry for entry in entries if isinstance(entry, ShieldEvent)]
                await self._publish(events, entries[-1].id)

    async def _publish(self, events: Sequence[ShieldEvent], last_id: StreamId) -> None:
        if unknown := self._hub.jobs.unknown_jobs(events):
            await self._recall(unknown, events[0].id)
        self._hub.publish(self._hub.jobs.apply(events), last_id)

    async def _recall(self, job_ids: Sequence[str] | set[str], before: StreamId) -> None:
        """Learn what was before of jobs seen for the first time; live events do not wait long."""
        clock = asyncio.get_running_loop().time
        if clock() < self._recall_again_at:
            return
        try:
            async with asyncio.timeout(_RECALL_TIMEOUT):
                await self._hub.jobs.recall(job_ids, before)
        except DATABASE_ERRORS as error:
            self._recall_again_at = clock() + _RECALL_PAUSE
            logger.warning("tail_recall_failed", jobs=len(job_ids), error=str(error))
