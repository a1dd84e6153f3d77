"""Reads the whole stream, once per process, for the clients of this process.

Redis trims old entries whether or not they were read. Whenever the last position is no longer
retained, the counters of Redis tell whether entries are missing. Missing entries that PostgreSQL
has are published in their place. Entries that are nowhere are reported to all clients.

After a failover or a crash of Redis the stream may lack the last entries, of which some were
published. The number of entries that Redis has added is then less than the number that was read,
also if new entries have followed. How many were lost unread is unknown, so all clients are told.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import cast, get_args

import structlog
from redis.asyncio import Redis

from src.models.event import ZERO, Poison, ShieldEvent, StreamId
from src.services.events.gaps import Gap, GapReason
from src.services.events.history import EventHistory, low_watermark
from src.services.events.hub import EventHub
from src.services.shield.parser import parse_entry, read_id
from src.services.shield.stream_info import stream_state
from src.services.shield.stream_position import StreamPosition, count_missed, was_replaced
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS
from src.utils.metrics import Metrics
from src.utils.page_size import PageSize
from src.utils.redis import BLOCK_MS, REDIS_ERRORS, Backoff, Row, row_bytes, stream_rows

logger = structlog.get_logger(__name__)

_PAGE_ENTRIES = 256
# Bytes published without yielding. Clients are served between two chunks.
_CHUNK_BYTES = 1024 * 1024
# Timeout of loading the history of jobs, and the pause after a failure, in seconds.
_REHYDRATE_TIMEOUT = 2.0
_REHYDRATE_PAUSE = 5.0
# Interval of the check whether Redis has lost entries that were read, in seconds.
_CHECK_INTERVAL = 1.0


class StreamTailer(BackgroundTask):
    """Follows the stream from the position of the hub.

    Clients are admitted once the whole stream has been read.
    """

    def __init__(  # noqa: PLR0913 - injected dependencies
        self,
        redis: Redis,
        history: EventHistory,
        hub: EventHub,
        metrics: Metrics,
        *,
        stream: str,
        max_bytes: int,
    ) -> None:
        super().__init__("event-tail")
        self._redis = redis
        self._history = history
        self._hub = hub
        self._metrics = metrics
        for reason in get_args(GapReason):
            # An alarm on an increase needs the value before the first gap.
            metrics.gaps.labels(reason)
        self._stream = stream
        self._max_bytes = max_bytes
        self._page_size = PageSize(_PAGE_ENTRIES)
        self._rehydrate_again_at = 0.0
        self._check_at = 0.0
        self._has_started = False
        self._position = StreamPosition(ZERO, 0)

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._start_at_low_watermark()
                await self._follow(backoff)
            except REDIS_ERRORS as error:
                self.waits_for("Redis", error)
                logger.warning("tail_interrupted", error=str(error), after=str(self._hub.last_id))
                await backoff.wait(self._stop)

    async def _start_at_low_watermark(self) -> None:
        """Starts before everything that Redis retains, with the jobs active at that time."""
        if self._has_started:
            return
        stream, now = await self._history.current_state()
        low_watermark_id = low_watermark(stream, now)
        if stream is not None:
            # The position must be the id of an entry. If the stream is empty, the low
            # watermark comes from the clock; use the last id.
            position = min(low_watermark_id, stream.last)
            self._position = StreamPosition(position, stream.added - stream.length, stream.last)
        self._hub.start(low_watermark_id)
        try:
            # The low watermark may be the id of an entry that Redis has trimmed.
            await self._rehydrate(await self._history.active_jobs(), low_watermark_id.next())
        except DATABASE_ERRORS as error:
            # Without PostgreSQL the live stream starts with what Redis retains.
            logger.warning("tail_history_unavailable", error=str(error))
        self._has_started = True

    async def _follow(self, backoff: Backoff) -> None:
        while not self._stop.is_set():
            requested = self._page_size.entries
            rows, retained = await self._read(requested)
            self.status = "following"
            backoff.reset()
            await self._check_end(rows)
            if await self._may_have_missed(rows, requested, retained):
                await self._recover_missed(rows)
            if rows:
                await self._publish_rows(rows)
            if len(rows) < requested:
                self._hub.started.set()

    async def _read(self, maximum: int) -> tuple[list[Row], int]:
        """Returns the next entries, and how many entries Redis retained at that moment."""
        # The first clients wait until everything has been read: do not block for more.
        block = BLOCK_MS if self._hub.started.is_set() else None
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xread({self._stream: str(self._hub.last_id)}, count=maximum, block=block)
            pipeline.xlen(self._stream)
            response, retained = await pipeline.execute()
        rows = stream_rows(response)
        self._page_size.adjust(len(rows), sum(map(row_bytes, rows)))
        return rows, retained

    async def _publish_rows(self, rows: Sequence[Row]) -> None:
        for chunk in _chunks(rows):
            await self._publish(
                [parse_entry(_id(row), row[1], self._max_bytes) for row in chunk], _id(chunk[-1])
            )
            await asyncio.sleep(0)
        self._position = self._position.advanced(_id(rows[-1]), len(rows))
        self._metrics.events_read.inc(len(rows))

    # Entries that Redis lost after they were read

    async def _check_end(self, rows: Sequence[Row]) -> None:
        """Checks at intervals that Redis has added as many entries as were read, with these rows.

        If it has added less, reports the loss and continues before the entries that may follow: their
        ids are below that of the last one if the clock of the new primary is behind.
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._check_at:
            return
        stream = await stream_state(self._redis, self._stream)
        added, last = (stream.added, stream.last) if stream else (0, ZERO)
        position = self._position
        if position.number is not None and added < position.number + len(rows):
            self._report_gap(Gap("unknown", position.id, position.id.next()))
            self._position = position._replace(number=None)
            if ZERO < last < self._hub.last_id:
                self._hub.step_back(last)
        elif position.number is None and last == (_id(rows[-1]) if rows else self._hub.last_id):
            # Nothing follows, so that the number is known again.
            self._position = StreamPosition(position.id, added - len(rows), last)
        self._check_at = clock() + _CHECK_INTERVAL

    # Entries that Redis may have trimmed before they were read

    async def _may_have_missed(self, rows: Sequence[Row], requested: int, retained: int) -> bool:
        """Whether no entry up to the last position is retained."""
        if len(rows) < requested:
            return retained == len(rows) and bool(rows or self._position.number)
        head = cast("list[Row]", await self._redis.xrange(self._stream, count=1))
        return not head or _id(head[0]) >= _id(rows[0])

    async def _recover_missed(self, rows: Sequence[Row]) -> None:
        """Publishes the missing entries before these rows, or reports that they are lost."""
        stream, now = await self._history.current_state()
        position = self._position
        if position.number and was_replaced(position, stream):
            self._report_gap(Gap("unknown", position.id, position.id.next()))
            self._position = StreamPosition(position.id, 0, now)
            return
        missing = count_missed(position, stream, map(_id, rows)) if stream is not None else None
        if missing is None:
            return
        before = _id(rows[0]) if rows else now
        stored = await self._publish_stored(before)
        if stored < missing.entries and missing.certain:
            self._report_gap(Gap("trimmed", position.id, before), entries=missing.entries - stored)
        self._position = position.advanced(before.previous(), missing.entries)

    async def _publish_stored(self, before: StreamId) -> int:
        """Publishes the stored events up to an id; returns how many entries are stored."""
        try:
            async for events in self._history.pages(self._hub.last_id, before):
                await self._publish(events, events[-1].id)
            return await self._history.count_stored(self._position.id, before)
        except DATABASE_ERRORS as error:
            logger.warning("tail_history_unavailable", error=str(error))
            return 0

    def _report_gap(self, gap: Gap, entries: int | None = None) -> None:
        logger.error("stream_gap", reason=gap.reason, after=str(gap.after), entries=entries)
        self._metrics.gaps.labels(gap.reason).inc(self._hub.publish_gap(gap))

    # Publishing

    async def _publish(self, entries: Sequence[ShieldEvent | Poison], last_id: StreamId) -> None:
        events = [entry for entry in entries if not isinstance(entry, Poison)]
        jobs = self._hub.jobs
        if unknown := jobs.unknown_jobs(events):
            await self._rehydrate(unknown, events[0].id)
        records = jobs.apply(events, rehydrated=unknown)
        self._metrics.frame_bytes.inc(sum(len(record.frames) for record in records))
        for reason, count in jobs.take_drop_counts().items():
            self._metrics.events_dropped.labels(reason).inc(count)
        self._hub.publish(records, last_id)

    async def _rehydrate(self, job_ids: Collection[str], before: StreamId) -> None:
        """Loads the history of unknown jobs, with a timeout so that live events are not delayed."""
        clock = asyncio.get_running_loop().time
        if clock() < self._rehydrate_again_at:
            return
        try:
            async with asyncio.timeout(_REHYDRATE_TIMEOUT):
                await self._hub.jobs.rehydrate(job_ids, before)
        except DATABASE_ERRORS as error:
            self._rehydrate_again_at = clock() + _REHYDRATE_PAUSE
            logger.warning("tail_recall_failed", jobs=len(job_ids), error=str(error))


def _id(row: Row) -> StreamId:
    return read_id(row[0])


def _chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yields the entries in order, in chunks of at least the byte limit, except for the last."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += row_bytes(row)
        if size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
