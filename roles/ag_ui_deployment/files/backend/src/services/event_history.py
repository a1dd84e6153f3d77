"""The past of the stream: from Redis while it is retained there, from PostgreSQL before that."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src.models.event import ZERO, Poison, ShieldEvent, StreamId
from src.repositories import events as event_rows
from src.repositories import jobs as job_rows
from src.services.event_parser import parse_entry
from src.utils.database import Database

if TYPE_CHECKING:
    from src.utils.redis import Row

logger = structlog.get_logger(__name__)

_PAGE = 500
# A job that has been silent for longer is no part of the "current state".
_ACTIVE_FOR = timedelta(hours=24)
_ACTIVE_MOST = 1000


class EventHistory:
    """Reads events by range of stream ids, whole and in order across the border."""

    def __init__(self, redis: Redis, database: Database, stream: str, max_bytes: int) -> None:
        self._redis = redis
        self._database = database
        self._stream = stream
        self._max_bytes = max_bytes

    async def retained_above(self) -> StreamId:
        """The id above which Redis holds all there is.

        An empty stream holds nothing older than Redis's clock, from which new ids are made.
        """
        rows = cast("list[Row]", await self._redis.xrange(self._stream, count=1))
        if rows:
            return StreamId.parse(rows[0][0].decode()).previous()
        seconds, microseconds = await self._redis.time()
        return StreamId(seconds * 1000 + microseconds // 1000, 0).previous()

    async def newest(self) -> StreamId:
        """The greatest id that Redis has given on this stream, 0-0 where there is none."""
        try:
            info = await self._redis.xinfo_stream(self._stream)
        except ResponseError:
            return ZERO
        return StreamId.parse(info["last-generated-id"].decode())

    async def pages(
        self, after: StreamId, before: StreamId, job_id: str | None = None
    ) -> AsyncIterator[Sequence[ShieldEvent]]:
        """Events with after < id < before, in order, in pages; of one job or of all.

        What Redis trims while we read is taken from PostgreSQL: each page of Redis comes with
        the first id it held at that moment, and what lies between is asked of PostgreSQL.
        Raises errors of Redis and of PostgreSQL as they are.
        """
        cursor = after
        while True:
            first, entries = await self._redis_page(cursor, before)
            border = min(first, before) if first is not None else before
            if cursor.next() < border:
                stored = await self._stored_page(cursor, border, job_id)
                if stored:
                    yield stored
                if len(stored) == _PAGE:
                    cursor = stored[-1].id
                    continue
                cursor = border.previous()
                if first is None:
                    return
            found = [event for event in entries if isinstance(event, ShieldEvent)]
            if job_id is not None:
                found = [event for event in found if event.job_id == job_id]
            if found:
                yield found
            if len(entries) < _PAGE:
                return
            cursor = entries[-1].id

    async def of_jobs(self, job_ids: Collection[str], before: StreamId) -> list[ShieldEvent]:
        """What PostgreSQL holds of these jobs below an id, in order."""
        if not job_ids:
            return []
        async with self._database.transaction() as session:
            return await event_rows.of_jobs(session, job_ids, before)

    async def active_jobs(self) -> list[str]:
        """Jobs that have not ended and were heard of lately."""
        async with self._database.transaction() as session:
            since = datetime.now(UTC) - _ACTIVE_FOR
            return await job_rows.active_ids(session, since, _ACTIVE_MOST)

    async def _stored_page(
        self, after: StreamId, before: StreamId, job_id: str | None
    ) -> list[ShieldEvent]:
        async with self._database.transaction() as session:
            return await event_rows.page(session, after, before, _PAGE, job_id)

    async def _redis_page(
        self, after: StreamId, before: StreamId
    ) -> tuple[StreamId | None, list[ShieldEvent | Poison]]:
        """The first id that Redis holds, and its entries of the range, seen at one moment."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xrange(self._stream, count=1)
            pipeline.xrange(self._stream, min=f"({after}", max=f"({before}", count=_PAGE)
            head, rows = await pipeline.execute()
        first = StreamId.parse(head[0][0].decode()) if head else None
        return first, [
            parse_entry(StreamId.parse(row_id.decode()), fields, self._max_bytes)
            for row_id, fields in rows
        ]
