"""Stores the entries of the Redis stream in PostgreSQL, as one member of the consumer group.

Invariants:

- An entry is acknowledged only after the transaction that stored it, as an event or as a dead
  letter, has committed. Until then it is pending, here or with the consumer that claims it.
- Storing is idempotent on the stream id, so a second delivery is harmless.
- Our own pending entries are read first, after each start and after each error of Redis.
- While PostgreSQL is unavailable nothing more is read. Each read counts as a delivery, and valid
  entries would look like poison messages.
- Entries that Redis trims before they are stored are counted and logged (group_reader.py).
- Clients have priority: no step blocks the event loop for more than a few milliseconds. Entries
  that arrive slowly are still stored in batches.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

import structlog
from redis.asyncio import Redis

from src.config import Settings
from src.models.event import Poison, ShieldEvent, StreamId
from src.services.consumer.event_store import MAX_ID_PART, EventStore, StoreResult
from src.services.consumer.group_reader import GroupReader
from src.services.consumer.losses import EntryLosses, Loss
from src.services.shield.parser import Fields, parse_entry, read_id, rejected_entry
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS
from src.utils.event_loop import cooperative_iter, yield_control
from src.utils.metrics import Metrics
from src.utils.redis import BLOCK_MS, REDIS_ERRORS, Backoff, Row

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")

# A transaction per event would cost more than the event. The first event after a pause is stored at
# once, the next ones together.
_BATCH_DELAY_SECONDS = 0.2
# Maximum pause before each batch while clients keep the process busy. A longer one risks that Redis
# trims entries before they are stored.
_YIELD_MAX_SECONDS = 0.025


class RedisStreamConsumer(BackgroundTask):
    """Moves entries from the stream to PostgreSQL, as one background task."""

    def __init__(
        self, redis: Redis, store: EventStore, settings: Settings, metrics: Metrics
    ) -> None:
        super().__init__("redis-consumer")
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self.losses = EntryLosses(metrics)
        self._group = GroupReader(redis, settings, self.losses)
        self._next_claim_at = 0.0

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                newest = await self._query_with_retry(self._store.newest_id)
                if self._stop.is_set():
                    return
                await self._group.join(newest)
                await self._store_own_pending()
                self.status = "consuming"
                backoff.reset()
                while not self._stop.is_set():
                    await self._claim_stale()
                    await self._store_new()
            except REDIS_ERRORS as error:
                self.waits_for("Redis", error)
                logger.warning("consumer_interrupted", error=str(error))
                await backoff.wait(self._stop)

    async def _store_own_pending(self) -> None:
        """Stores the entries that this consumer read and did not acknowledge."""
        while not self._stop.is_set():
            rows = await self._group.read_own_pending()
            if not rows:
                return
            logger.info("consumer_recovers_pending", entries=len(rows))
            await self._store_rows(rows, await self._group.over_delivered(rows))

    async def _store_new(self) -> None:
        await yield_control(_YIELD_MAX_SECONDS)
        rows = await self._group.read_new()
        await self._record_losses()
        if rows:
            await self._store_rows(rows)
        if self._group.caught_up:
            # More entries may arrive meanwhile, and then share a transaction.
            await self._pause(_BATCH_DELAY_SECONDS)
            await self._group.wait(BLOCK_MS)

    async def _claim_stale(self) -> None:
        """Claims entries that another consumer has held for so long that it must have died."""
        clock = asyncio.get_running_loop().time
        if clock() < self._next_claim_at:
            return
        cursor = "0-0"
        while not self._stop.is_set():
            cursor, rows, removed = await self._group.claim_stale(cursor)
            if rows:
                logger.info("consumer_claimed_stale", entries=len(rows))
                await self._store_rows(rows, await self._group.over_delivered(rows), removed)
            elif removed:
                await self._store_rows((), removed=removed)
            if cursor == "0-0":
                break
        self._next_claim_at = clock() + self._settings.CONSUMER_CLAIM_IDLE_SECONDS / 2

    async def _store_rows(
        self,
        rows: Sequence[Row],
        over_delivered: Collection[bytes] = (),
        removed: Sequence[StreamId] = (),
    ) -> None:
        """Stores a batch, then acknowledges it. Retries while PostgreSQL is unavailable."""
        started_at = time.monotonic()
        entries: list[ShieldEvent | Poison] = []
        removed = [stream_id for stream_id in removed if max(stream_id) <= MAX_ID_PART]
        async for row_id, fields in cooperative_iter(rows):
            stream_id = read_id(row_id)
            if max(stream_id) > MAX_ID_PART:
                self._report_dead_letter(Poison(stream_id, "its id is too great to be stored", b""))
            elif not fields:
                removed.append(stream_id)
            else:
                max_deliveries_exceeded = row_id in over_delivered
                entries.append(
                    self._entry(stream_id, fields, max_deliveries_exceeded=max_deliveries_exceeded)
                )
        stored = await self._query_with_retry(lambda: self._store.store(entries))
        if stored is None:
            return
        self._count_stored(stored, len(entries), time.monotonic() - started_at)
        await self._report_trimmed(removed)
        if rows:
            await self._group.acknowledge(rows)

    def _entry(
        self, stream_id: StreamId, fields: Fields, *, max_deliveries_exceeded: bool
    ) -> ShieldEvent | Poison:
        if max_deliveries_exceeded:
            reason = (
                f"delivered more than {self._settings.CONSUMER_MAX_DELIVERIES} times, never stored"
            )
            return rejected_entry(stream_id, fields, reason)
        return parse_entry(stream_id, fields, self._settings.EVENT_MAX_BYTES)

    async def _report_trimmed(self, removed: Sequence[StreamId]) -> None:
        """Reports delivered entries that are no longer in the stream, mostly due to trimming.

        Entries that a consumer stored before it died without an acknowledgement are not lost.
        """
        trimmed = await self._group.select_trimmed(removed) if removed else []
        missing = await self._query_with_retry(lambda: self._store.missing(trimmed))
        if missing:
            before, after = missing[-1].next(), missing[0].previous()
            self.losses.report(Loss("trimmed_pending", len(missing), after, before))

    async def _record_losses(self) -> None:
        """Stores losses in PostgreSQL, where every instance finds them when a client resumes."""
        losses = self.losses.unrecorded
        if losses:
            await self._query_with_retry(lambda: self._store.record(losses))
            losses.clear()

    async def _query_with_retry(self, query: Callable[[], Awaitable[Result]]) -> Result | None:
        """Runs a query and retries it during an outage; returns None if stopped first."""
        backoff = Backoff()
        before = self.status
        while True:
            try:
                result = await query()
            except DATABASE_ERRORS as error:
                if self.waits_for("PostgreSQL", error):
                    logger.warning("consumer_waits_for_database", error=str(error))
                if self._stop.is_set():
                    return None
                await backoff.wait(self._stop)
            else:
                self.status = before
                return result

    def _count_stored(self, stored: StoreResult, entries: int, seconds: float) -> None:
        if entries:
            self._metrics.batch_entries.observe(entries)
            self._metrics.batch_seconds.observe(seconds)
        self._metrics.events_stored.inc(stored.events)
        for poison in stored.poison:
            self._report_dead_letter(poison)

    def _report_dead_letter(self, poison: Poison) -> None:
        self._metrics.dead_letters.inc()
        logger.warning("dead_letter", stream_id=str(poison.id), reason=poison.reason)
