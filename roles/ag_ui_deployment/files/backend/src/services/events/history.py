"""The past of the stream: from Redis while it is retained there, from PostgreSQL before that."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src.models.event import ZERO, Poison, ShieldEvent, StreamId
from src.repositories import events as event_rows
from src.repositories import gaps as gap_rows
from src.repositories import jobs as job_rows
from src.services.events.gaps import GapReason
from src.services.shield.parser import parse_entry, read_id
from src.services.shield.stream_position import StreamState
from src.utils.database import Database
from src.utils.page_size import PageSize

if TYPE_CHECKING:
    from src.utils.redis import Row

_PAGE = 500
# A job that has been silent for longer is no part of the "current state".
_ACTIVE_FOR = timedelta(hours=24)
_ACTIVE_MAX = 1000


class EventHistory:
    """Reads events by range of stream ids, whole and in order across the border."""

    def __init__(self, redis: Redis, database: Database, stream: str, max_bytes: int) -> None:
        self._redis = redis
        self._database = database
        self._stream = stream
        self._max_bytes = max_bytes

    async def retained_above(self) -> StreamId:
        """The id above which Redis holds all there is."""
        return begin_of(*await self.stream_now())

    async def newest(self) -> StreamId:
        """The greatest id that Redis has given on this stream, 0-0 where there is none."""
        stream, _ = await self.stream_now()
        return stream.last if stream else ZERO

    async def stream_now(self) -> tuple[StreamState | None, StreamId]:
        """The stream as Redis has it, None if there is none, and the id that its clock gives."""
        seconds, microseconds = await self._redis.time()
        now = StreamId(seconds * 1000 + microseconds // 1000, 0)
        try:
            return StreamState.of(await self._redis.xinfo_stream(self._stream)), now
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return None, now

    async def count_stored(self, after: StreamId, before: StreamId) -> int:
        """How many entries of the range PostgreSQL has got, as events or as dead letters."""
        async with self._database.transaction() as session:
            return await event_rows.count(session, after, before)

    async def pages(
        self, after: StreamId, before: StreamId, job_id: str | None = None
    ) -> AsyncIterator[Sequence[ShieldEvent]]:
        """Events with after < id < before, in order, in pages; of one job or of all.

        What Redis trims while we read is taken from PostgreSQL: each page of Redis comes with
        the id up to which it may lack something, and what lies below is asked of PostgreSQL.
        Raises errors of Redis and of PostgreSQL as they are.
        """
        cursor = after
        jobs = None if job_id is None else (job_id,)
        in_redis, stored_size = PageSize(_PAGE), PageSize(_PAGE)
        while True:
            asked = in_redis.entries
            first, rows = await self._redis_page(cursor, before, asked)
            in_redis.adjust(len(rows), _bytes_of(rows))
            border = min(first, before) if first is not None else before
            if cursor.next() < border:
                asked_stored = stored_size.entries
                stored = await self._stored_page(cursor, border, asked_stored, jobs)
                if stored:
                    stored_size.adjust(len(stored), _size_of(stored))
                    yield stored
                if len(stored) == asked_stored:
                    cursor = stored[-1].id
                    continue
                cursor = border.previous()
                if first is None:
                    return
            found = self._events_of(rows, job_id)
            if found:
                yield found
            if len(rows) < asked:
                return
            cursor = read_id(rows[-1][0])

    async def of_jobs(
        self, job_ids: Collection[str], before: StreamId
    ) -> AsyncIterator[Sequence[ShieldEvent]]:
        """What PostgreSQL holds of these jobs below an id, in order, in pages."""
        cursor, size = ZERO, PageSize(_PAGE)
        while job_ids:
            asked = size.entries
            events = await self._stored_page(cursor, before, asked, job_ids)
            if events:
                yield events
                size.adjust(len(events), _size_of(events))
            if len(events) < asked:
                return
            cursor = events[-1].id

    async def gap_above(self, cursor: StreamId) -> GapReason | None:
        """Whether something that followed a cursor is kept nowhere any more."""
        if cursor == ZERO:
            return None
        async with self._database.transaction() as session:
            stored = await event_rows.first_id(session)
            trimmed = await gap_rows.is_any_above(session, cursor)
        stream, _ = await self.stream_now()
        kept = [one for one in (stored, stream and stream.first) if one is not None]
        # A cursor is the id of an event: where that is gone, what followed it may be gone too. A
        # border is none: it tells nothing as long as Redis holds all that ever came.
        whole = cursor.is_border and (stream is None or not stream.removed)
        if not whole and (not kept or cursor < min(kept)):
            return "expired"
        return "trimmed" if trimmed else None

    async def active_jobs(self) -> list[str]:
        """Jobs that have not ended and were heard of lately."""
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
    ) -> "tuple[StreamId | None, list[Row]]":
        """Entries of the range, and the id up to which Redis may lack some of it.

        Not in a transaction, which Redis refuses when its memory is full. So it is asked afterwards
        what it holds: what was trimmed before or between lies below the first entry of the page.
        """
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xrange(self._stream, min=f"({after}", max=f"({before}", count=maximum)
            pipeline.xrange(self._stream, count=1)
            rows, head = await pipeline.execute()
        if head and read_id(head[0][0]) <= after.next():
            return after.next(), rows
        return (read_id(rows[0][0]) if rows else None), rows

    def _events_of(self, rows: "Sequence[Row]", job_id: str | None) -> list[ShieldEvent]:
        """The events among entries, of one job or of all; another job's need not be read for it."""
        if job_id is not None:
            wanted = job_id.encode()
            rows = [row for row in rows if row[1].get(b"job_id", b"").strip() == wanted]
        entries = (parse_entry(read_id(row_id), fields, self._max_bytes) for row_id, fields in rows)
        return [entry for entry in entries if not isinstance(entry, Poison)]


def begin_of(stream: StreamState | None, now: StreamId) -> StreamId:
    """The id above which Redis holds all there is.

    An empty stream holds nothing older than Redis's clock, from which new ids are made.
    """
    if stream is not None and stream.first is not None:
        return stream.first.previous()
    return max(now.previous(), stream.last if stream is not None else ZERO)


def _bytes_of(rows: "Sequence[Row]") -> int:
    return sum(len(value) for _, fields in rows for value in fields.values())


def _size_of(events: Sequence[ShieldEvent]) -> int:
    return sum(len(orjson.dumps(event.data)) for event in events)
