"""The consumer: moves entries of the stream into PostgreSQL, as one member of the group.

Invariants:
- an entry is acknowledged only after the transaction that stored it (or its dead letter) has
  committed; until then it is pending, here or with whoever claims it;
- storing is idempotent on the stream id, so being handed an entry again does no harm;
- our own pending entries are read first, after every start and after every error of Redis;
- while PostgreSQL is away nothing more is read: a read counts as a delivery, and the entries
  would seem poisonous for no fault of theirs;
- a lost group is made again at the start of the stream: entries that another member had pending
  are then read again, which a later position would lose.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src.config import Settings
from src.models.event import Poison, ShieldEvent, StreamId
from src.services.event_parser import Fields, dump_fields, parse_entry
from src.services.event_store import EventStore
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS
from src.utils.redis import BLOCK_MS, REDIS_ERRORS, Backoff, Row, stream_rows

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """`claim_idle_ms` is how long an entry must lie with a consumer before another takes it."""

    stream: str
    group: str
    name: str
    batch_size: int
    claim_idle_ms: int
    max_deliveries: int
    max_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> "ConsumerConfig":
        return cls(
            stream=settings.REDIS_STREAM_NAME,
            group=settings.REDIS_CONSUMER_GROUP,
            name=settings.REDIS_CONSUMER_NAME,
            batch_size=settings.CONSUMER_BATCH_SIZE,
            claim_idle_ms=settings.CONSUMER_CLAIM_IDLE_SECONDS * 1000,
            max_deliveries=settings.CONSUMER_MAX_DELIVERIES,
            max_bytes=settings.EVENT_MAX_BYTES,
        )


class RedisStreamConsumer(BackgroundTask):
    """Runs as one task from start() to stop(). `counts` are totals since the start."""

    def __init__(self, redis: Redis, store: EventStore, config: ConsumerConfig) -> None:
        super().__init__("redis-consumer")
        self._redis = redis
        self._store = store
        self._config = config
        self._claim_at = 0.0
        self.counts: Counter[str] = Counter()

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._await_database()
                await self._join()
                await self._read_own_pending()
                backoff.reset()
                while not self._stop.is_set():
                    await self._claim_stale()
                    await self._read_new()
            except REDIS_ERRORS as error:
                self.status = "waiting for Redis"
                logger.warning("consumer_interrupted", error=str(error))
                await backoff.wait(self._stop)

    async def _await_database(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._store.ping()
            except DATABASE_ERRORS as error:
                self._database_away(error)
                await backoff.wait(self._stop)
            else:
                return

    async def _join(self) -> None:
        """Make the group and ourselves known, where they are not."""
        config = self._config
        try:
            await self._redis.xgroup_create(config.stream, config.group, id="0", mkstream=True)
            logger.info("consumer_group_created", stream=config.stream, group=config.group)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        await self._redis.xgroup_createconsumer(config.stream, config.group, config.name)
        self.status = "consuming"

    async def _read_own_pending(self) -> None:
        """Store what we were handed before and never acknowledged."""
        while not self._stop.is_set():
            rows = await self._read("0")
            if not rows:
                return
            logger.info("consumer_recovers_pending", entries=len(rows))
            await self._store_rows(rows, await self._over_delivered(rows))

    async def _read_new(self) -> None:
        rows = await self._read(">", block=BLOCK_MS)
        if rows:
            await self._store_rows(rows, set())

    async def _claim_stale(self) -> None:
        """Take over entries that a consumer has held for too long: it has died."""
        clock = asyncio.get_running_loop().time
        if clock() < self._claim_at:
            return
        config = self._config
        cursor = "0-0"
        while not self._stop.is_set():
            next_cursor, rows, deleted = await self._redis.xautoclaim(
                config.stream,
                config.group,
                config.name,
                config.claim_idle_ms,
                start_id=cursor,
                count=config.batch_size,
            )
            if deleted:
                self._lost([row_id.decode() for row_id in deleted])
            if rows:
                self.counts["claimed"] += len(rows)
                logger.info("consumer_claimed_stale", entries=len(rows))
                await self._store_rows(rows, await self._over_delivered(rows))
            cursor = next_cursor.decode()
            if cursor == "0-0":
                break
        self._claim_at = clock() + config.claim_idle_ms / 1000 / 2

    async def _read(self, position: str, block: int | None = None) -> list[Row]:
        config = self._config
        answer = await self._redis.xreadgroup(
            config.group,
            config.name,
            {config.stream: position},
            count=config.batch_size,
            block=block,
        )
        return stream_rows(answer)

    async def _over_delivered(self, rows: Sequence[Row]) -> set[bytes]:
        """Entries handed out so often, never stored, that they must be what kills consumers."""
        config = self._config
        pending: list[dict[str, Any]] = await self._redis.xpending_range(
            config.stream,
            config.group,
            min=rows[0][0],
            max=rows[-1][0],
            count=len(rows),
            consumername=config.name,
        )
        return {
            entry["message_id"]
            for entry in pending
            if entry["times_delivered"] > config.max_deliveries
        }

    async def _store_rows(self, rows: Sequence[Row], over_delivered: set[bytes]) -> None:
        """Store a batch, however long PostgreSQL takes to come back, then acknowledge it."""
        trimmed = [row_id.decode() for row_id, fields in rows if not fields]
        if trimmed:
            self._lost(trimmed)
        entries = [
            self._entry(row_id, fields, worn_out=row_id in over_delivered)
            for row_id, fields in rows
            if fields
        ]
        if not await self._commit(entries):
            return
        await self._redis.xack(
            self._config.stream, self._config.group, *(row_id for row_id, _ in rows)
        )

    def _entry(self, row_id: bytes, fields: Fields, *, worn_out: bool) -> ShieldEvent | Poison:
        stream_id = StreamId.parse(row_id.decode())
        if worn_out:
            reason = f"delivered more than {self._config.max_deliveries} times, never stored"
            return Poison(stream_id, reason, dump_fields(fields))
        return parse_entry(stream_id, fields, self._config.max_bytes)

    async def _commit(self, entries: Sequence[ShieldEvent | Poison]) -> bool:
        """True once the entries are committed; False if we were stopped before."""
        backoff = Backoff()
        while True:
            try:
                stored = await self._store.store(entries)
            except DATABASE_ERRORS as error:
                self._database_away(error)
                if self._stop.is_set():
                    return False
                await backoff.wait(self._stop)
                continue
            self.status = "consuming"
            self.counts["events"] += stored.events
            for poison in stored.poison:
                self.counts["dead_letters"] += 1
                logger.warning("dead_letter", stream_id=str(poison.id), reason=poison.reason)
            return True

    def _database_away(self, error: BaseException) -> None:
        if self.status != "waiting for PostgreSQL":
            logger.warning("consumer_waits_for_database", error=str(error))
        self.status = "waiting for PostgreSQL"

    def _lost(self, ids: Sequence[str]) -> None:
        """Redis trimmed entries that were handed out and never stored: nobody has them now."""
        self.counts["lost"] += len(ids)
        logger.error("entries_lost", count=len(ids), first=ids[0], last=ids[-1])
