"""Reads as one member of a consumer group, and detects entries that no member will receive.

Besides the position of a group, Redis keeps the number of entries added up to it. Before each read,
atomically with it (read_group.lua), this number is compared with the number of entries removed from
the stream. If no entry that the group has read is retained, and more entries were removed than it
had read, the difference was trimmed unread. The number is then corrected, so that each range is
found once, by one member, also across restarts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src.config import Settings
from src.models.event import ZERO, StreamId
from src.services.consumer.group_info import group_info
from src.services.consumer.losses import EntryLosses, Loss
from src.services.shield.parser import read_id
from src.services.shield.stream_info import stream_state
from src.services.shield.stream_position import StreamPosition, StreamState, was_replaced
from src.utils.page_size import PageSize
from src.utils.redis import Row, row_bytes, stream_rows

logger = structlog.get_logger(__name__)

# Entries per call of the script. Redis is blocked while it runs.
_READ_ENTRIES = 128
_BATCH_BYTES = 4 * 1024 * 1024
_SCRIPT = Path(__file__).with_name("read_group.lua").read_text()


class _TrimmedRange(NamedTuple):
    """Entries that were removed unread between two ids; `before` is empty if none follows."""

    after: bytes
    entries: int
    before: bytes


class _ReadResult(NamedTuple):
    """The result of read_group.lua.

    Attributes:
        position: The position of the group before the read.
        trimmed_ranges: The ranges that this consumer must report.
        uncertain: The number of other missing entries, which may all have been deleted with XDEL.
        rows: The entries.
        reached_end: Whether these are all entries that were unread.
        number: The number of entries added up to the position after the read, if known.
        unread: The number of entries after that position, if known.
    """

    position: StreamId
    trimmed_ranges: list[_TrimmedRange]
    uncertain: int
    rows: list[Row]
    reached_end: bool
    number: int | None
    unread: int | None

    @classmethod
    def of(cls, response: list[Any]) -> Self:
        position, trimmed_ranges, uncertain, rows, reached_end, number, unread = response
        return cls(
            position=read_id(position),
            trimmed_ranges=[_TrimmedRange(*trimmed_range) for trimmed_range in trimmed_ranges],
            uncertain=uncertain,
            rows=[(row_id, dict(_pairs(fields))) for row_id, fields in rows],
            reached_end=bool(reached_end),
            number=None if number < 0 else number,
            unread=None if unread < 0 else unread,
        )


def _pairs(values: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    iterator = iter(values)
    return zip(iterator, iterator, strict=True)


class GroupReader:
    """Reads, claims and acknowledges entries.

    `caught_up` is True if the last read left no entry unread.
    """

    def __init__(self, redis: Redis, settings: Settings, losses: EntryLosses) -> None:
        self._redis = redis
        self._read_script = redis.register_script(_SCRIPT)
        self._stream_name = settings.REDIS_STREAM_NAME
        self._group = settings.REDIS_CONSUMER_GROUP
        self._consumer = settings.REDIS_CONSUMER_NAME
        self._batch_size = settings.CONSUMER_BATCH_SIZE
        self._claim_idle_ms = settings.CONSUMER_CLAIM_IDLE_SECONDS * 1000
        self._max_deliveries = settings.CONSUMER_MAX_DELIVERIES
        self._losses = losses
        self._unreported = f"{self._stream_name}:{self._group}:untold"
        self._pending_size = PageSize(_READ_ENTRIES, target_bytes=_BATCH_BYTES)
        # The position of the group after our last read, and the number of unread entries then.
        self._position: StreamPosition | None = None
        self._unread = 0
        self._reported: set[bytes] = set()
        self.caught_up = False

    async def join(self, newest_stored: StreamId | None) -> None:
        """Creates the group at the beginning of the stream if it does not exist.

        Entries that other members had pending are then read again; a later position would lose
        them. Entries that were removed from the stream before then count as read.

        Args:
            newest_stored: The greatest id in PostgreSQL, to detect a lost stream after a restart.
        """
        stream = await self._stream()
        if stream and await group_info(self._redis, self._stream_name, self._group):
            return
        previous = self._position or (StreamPosition(newest_stored) if newest_stored else None)
        if previous and previous.id > ZERO and was_replaced(previous, stream):
            self._report_stream_replaced(previous, self._unread)
        self._position, self._unread = None, 0
        try:
            await self._redis.xgroup_create(
                self._stream_name,
                self._group,
                id="0",
                mkstream=True,
                entries_read=stream.removed if stream else 0,
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        else:
            logger.info("consumer_group_created", stream=self._stream_name, group=self._group)

    async def read_new(self) -> list[Row]:
        """Reads new entries, up to a batch, in entries and in bytes."""
        rows: list[Row] = []
        size = 0
        self.caught_up = False
        while not self.caught_up and len(rows) < self._batch_size and size < _BATCH_BYTES:
            page = await self._read_next(self._batch_size - len(rows), _BATCH_BYTES - size)
            size += sum(map(row_bytes, page))
            rows += page
        return rows

    async def wait(self, milliseconds: int) -> None:
        """Waits for entries after the position of the group.

        Does not read for the group, since only the script compares the counters.
        """
        position = self._position.id if self._position else ZERO
        await self._redis.xread({self._stream_name: str(position)}, count=1, block=milliseconds)

    async def read_own_pending(self) -> list[Row]:
        """Reads entries that this consumer did not acknowledge; a trimmed entry has no fields."""
        response = await self._redis.xreadgroup(
            self._group, self._consumer, {self._stream_name: "0"}, count=self._pending_size.entries
        )
        rows = stream_rows(response)
        self._pending_size.adjust(len(rows), sum(map(row_bytes, rows)))
        return rows

    async def claim_stale(self, cursor: str) -> tuple[str, list[Row], list[StreamId]]:
        """Claims entries that another consumer has held for too long.

        Args:
            cursor: `0-0` to begin, then the cursor that the last call returned.

        Returns:
            The next cursor (`0-0` at the end), the entries, and the ids of entries that are no
                longer in the stream.
        """
        next_cursor, rows, removed = await self._redis.xautoclaim(
            self._stream_name,
            self._group,
            self._consumer,
            self._claim_idle_ms,
            start_id=cursor,
            count=self._pending_size.entries,
        )
        self._pending_size.adjust(len(rows), sum(map(row_bytes, rows)))
        return next_cursor.decode(), rows, [read_id(row_id) for row_id in removed]

    async def over_delivered(self, rows: Sequence[Row]) -> set[bytes]:
        """Returns entries delivered so often without being stored that they may crash consumers."""
        pending: list[dict[str, Any]] = await self._redis.xpending_range(
            self._stream_name,
            self._group,
            min=rows[0][0],
            max=rows[-1][0],
            count=len(rows),
            consumername=self._consumer,
        )
        return {
            entry["message_id"]
            for entry in pending
            if entry["times_delivered"] > self._max_deliveries
        }

    async def acknowledge(self, rows: Sequence[Row]) -> None:
        await self._redis.xack(self._stream_name, self._group, *(row_id for row_id, _ in rows))

    async def select_trimmed(self, removed: Sequence[StreamId]) -> list[StreamId]:
        """Returns the removed entries that were trimmed, not deleted.

        Redis trims the oldest entries, so an entry after the first retained one was deleted.
        """
        stream = await self._stream() if removed else None
        if stream is None or stream.first is None:
            return list(removed)
        return [entry_id for entry_id in removed if entry_id < stream.first]

    async def _read_next(self, maximum: int, max_bytes: int) -> list[Row]:
        response = await self._read_script(
            keys=[self._stream_name, self._unreported],
            args=[
                self._group,
                self._consumer,
                min(maximum, _READ_ENTRIES),
                max_bytes,
                str(self._position.confirmed_until) if self._position else "",
            ],
        )
        read = _ReadResult.of(response)
        self.caught_up = read.reached_end
        await self._report_trimmed(read)
        await self._update_position(read)
        return read.rows

    async def _report_trimmed(self, read: _ReadResult) -> None:
        """Reports trimmed ranges, then deletes them in Redis, whose response may get lost before."""
        for trimmed_range in read.trimmed_ranges:
            if trimmed_range.after not in self._reported:
                before = (
                    read_id(trimmed_range.before) if trimmed_range.before else await self._next_id()
                )
                self._losses.report(
                    Loss(
                        "trimmed_unread",
                        trimmed_range.entries,
                        read_id(trimmed_range.after),
                        before,
                    )
                )
                self._reported.add(trimmed_range.after)
        if read.uncertain:
            after = str(read.position)
            logger.warning("entries_removed_unread", at_most=read.uncertain, after=after)
        if self._reported:
            await self._redis.hdel(self._unreported, *self._reported)
            self._reported.clear()

    async def _update_position(self, read: _ReadResult) -> None:
        previous, unread = self._position, self._unread
        position = read_id(read.rows[-1][0]) if read.rows else read.position
        confirmed_until = previous.confirmed_until if previous else read.position
        self._position = StreamPosition(
            position, read.number, position if read.reached_end else confirmed_until
        )
        self._unread = read.unread or 0
        if previous and read.position < previous.id:
            stream = await self._stream()
            if was_replaced(previous, stream):
                self._report_stream_replaced(previous, unread)
            else:
                logger.warning("consumer_group_moved_back", last_known=str(previous.id))

    def _report_stream_replaced(self, position: StreamPosition, unread: int) -> None:
        """Reports the entries unread at the last read; how many were added since is unknown."""
        loss = Loss("stream_gone", max(1, unread), position.id, position.id.next())
        self._losses.report(loss, at_least=True)

    async def _next_id(self) -> StreamId:
        """Returns an id greater than any that was added."""
        stream = await self._stream()
        return stream.last.next() if stream else ZERO

    async def _stream(self) -> StreamState | None:
        return await stream_state(self._redis, self._stream_name)
