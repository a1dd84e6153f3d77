"""Reads past events: from Redis while they are retained there, else from PostgreSQL."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta

import orjson
from redis.asyncio import Redis

from src.models.event import ZERO, Poison, ShieldEvent, StreamId
from src.repositories import events as event_rows
from src.repositories import jobs as job_rows
from src.services.events.gaps import GapReason
from src.services.shield.parser import parse_entry, read_id
from src.services.shield.stream_info import stream_state
from src.services.shield.stream_position import StreamState
from src.utils.database import Database
from src.utils.page_size import PageSize
from src.utils.redis import Row, row_bytes

_PAGE = 500
# Jobs without an event for longer are not part of the current state.
_ACTIVE_FOR = timedelta(hours=24)
_ACTIVE_MAX = 1000


class EventHistory:
    """Reads events by range of stream ids, complete and in order across both stores."""

    def __init__(self, redis: Redis, database: Database, stream: str, max_bytes: int) -> None:
        self._redis = redis
        self._database = database
        self._stream = stream
        self._max_bytes = max_bytes

    async def redis_low_watermark(self) -> StreamId:
        """Returns the id above which Redis retains all entries."""
        return low_watermark(*await self.current_state())

    async def newest_id(self) -> StreamId:
        """Returns the greatest id that was added to this stream; 0-0 if there is none."""
        stream, _ = await self.current_state()
        return stream.last if stream else ZERO

    async def current_state(self) -> tuple[StreamState | None, StreamId]:
        """Returns the stream, None if there is none, and the time of Redis as an id."""
        seconds, microseconds = await self._redis.time()
        now = StreamId(seconds * 1000 + microseconds // 1000, 0)
        return await stream_state(self._redis, self._stream), now

    async def count_stored(self, after: StreamId, before: StreamId) -> int:
        """Counts the entries of a range that are stored, as events or as dead letters."""
        async with self._database.transaction() as session:
            return await event_rows.count(session, after, before)

    async def pages(
        self, after: StreamId, before: StreamId, job_id: str | None = None
    ) -> AsyncIterator[Sequence[ShieldEvent]]:
        """Yields events with after < id < before, in order, in pages.

        Entries that Redis trims during the read come from PostgreSQL: each page of Redis has the id
        below which it may be incomplete, and PostgreSQL supplies that part.

        Args:
            after: The exclusive lower bound.
            before: The exclusive upper bound.
            job_id: The job to read; None for all jobs.

        Yields:
            Pages of events, none of them empty.

        Raises:
            REDIS_ERRORS: Redis is unavailable.
            DATABASE_ERRORS: PostgreSQL is unavailable.
        """
        cursor = after
        jobs = None if job_id is None else (job_id,)
        redis_page_size, stored_page_size = PageSize(_PAGE), PageSize(_PAGE)
        while True:
            requested = redis_page_size.entries
            complete_from, rows = await self._redis_page(cursor, before, requested)
            redis_page_size.adjust(len(rows), sum(map(row_bytes, rows)))
            redis_from = min(complete_from, before) if complete_from is not None else before
            if cursor.next() < redis_from:
                requested_stored = stored_page_size.entries
                stored = await self._stored_page(cursor, redis_from, requested_stored, jobs)
                if stored:
                    stored_page_size.adjust(len(stored), _size_of_events(stored))
                    yield stored
                if len(stored) == requested_stored:
                    cursor = stored[-1].id
                    continue
                cursor = redis_from.previous()
                if complete_from is None:
                    return
            events = self._events_of(rows, job_id)
            if events:
                yield events
            if len(rows) < requested:
                return
            cursor = read_id(rows[-1][0])

    async def job_events(
        self, job_ids: Collection[str], before: StreamId
    ) -> AsyncIterator[Sequence[ShieldEvent]]:
        """Yields the stored events of these jobs before an id, in order, in pages."""
        cursor, size = ZERO, PageSize(_PAGE)
        while job_ids:
            requested = size.entries
            events = await self._stored_page(cursor, before, requested, job_ids)
            if events:
                yield events
                size.adjust(len(events), _size_of_events(events))
            if len(events) < requested:
                return
            cursor = events[-1].id

    async def gap_after(self, cursor: StreamId) -> GapReason | None:
        """Returns why events after a cursor may be lost; None if they are all stored."""
        if cursor == ZERO:
            return None
        async with self._database.transaction() as session:
            stored = await event_rows.first_id(session)
            trimmed = await event_rows.is_any_gap_above(session, cursor)
        stream, _ = await self.current_state()
        oldest_ids = [oldest for oldest in (stored, stream and stream.first) if oldest is not None]
        # A cursor is usually the id of an event. If that event is missing, later ones may be missing
        # too. A border is not the id of an event, so its absence is no sign of a loss while Redis
        # retains all entries that were ever added.
        is_complete = cursor.is_last_of_millisecond and (stream is None or not stream.removed)
        if not is_complete and (not oldest_ids or cursor < min(oldest_ids)):
            return "expired"
        return "trimmed" if trimmed else None

    async def active_jobs(self) -> list[str]:
        """Returns the ids of jobs that have not ended and had an event recently."""
        async with self._database.transaction() as session:
            since = datetime.now(UTC) - _ACTIVE_FOR
            return await job_rows.active_ids(session, since, _ACTIVE_MAX)

    async def _stored_page(
        self, after: StreamId, before: StreamId, maximum: int, job_ids: Collection[str] | None
    ) -> list[ShieldEvent]:
        async with self._database.transaction() as session:
            return await event_rows.page(session, after, before, maximum, job_ids)

    async def _redis_page(
        self, after: StreamId, before: StreamId, maximum: int
    ) -> tuple[StreamId | None, list[Row]]:
        """Returns entries of the range, and the id below which the page may be incomplete.

        Does not use a transaction, which Redis rejects when its memory is full. The head of the
        stream is therefore read after the page: what was trimmed before or in between is below the
        first entry of the page.
        """
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xrange(self._stream, min=f"({after}", max=f"({before}", count=maximum)
            pipeline.xrange(self._stream, count=1)
            rows, head = await pipeline.execute()
        if head and read_id(head[0][0]) <= after.next():
            return after.next(), rows
        return (read_id(rows[0][0]) if rows else None), rows

    def _events_of(self, rows: Sequence[Row], job_id: str | None) -> list[ShieldEvent]:
        """Parses entries; skips those of other jobs without parsing, and invalid ones."""
        if job_id is not None:
            expected = job_id.encode()
            rows = [row for row in rows if row[1].get(b"job_id", b"").strip() == expected]
        entries = (parse_entry(read_id(row_id), fields, self._max_bytes) for row_id, fields in rows)
        return [entry for entry in entries if not isinstance(entry, Poison)]


def low_watermark(stream: StreamState | None, now: StreamId) -> StreamId:
    """Returns the id above which Redis retains all entries.

    Args:
        stream: The state of the stream; None if it does not exist.
        now: The time of Redis as an id, from which new ids are made. An empty stream has no entry
            before it.
    """
    if stream is not None and stream.first is not None:
        return stream.first.previous()
    return max(now.previous(), stream.last if stream is not None else ZERO)


def _size_of_events(events: Sequence[ShieldEvent]) -> int:
    return sum(len(orjson.dumps(event.data)) for event in events)
