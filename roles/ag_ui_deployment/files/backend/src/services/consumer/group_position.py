"""Reads the position of the consumer group for a backup, and sets it when the backup is restored.

A restored database lacks what was stored after the backup. Redis may still retain these entries, or
may have trimmed them, or may have been lost too. The group continues at the position of the backup:
storing is idempotent, so it reads again what is retained. What is lost becomes a gap, which every
instance finds when a client resumes from before its end.
"""

from typing import TYPE_CHECKING, Self, cast

from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src.models.event import ZERO, StreamId
from src.services.consumer.event_store import EventStore
from src.services.consumer.group_info import GroupInfo, group_info
from src.services.consumer.losses import Loss
from src.services.shield.parser import read_id
from src.services.shield.stream_info import stream_state
from src.services.shield.stream_position import (
    MissedEntries,
    StreamPosition,
    StreamState,
    count_missed,
    was_replaced,
)

if TYPE_CHECKING:
    from src.utils.redis import Row

_PAGE_ENTRIES = 100
# Entries that are delivered and not all acknowledged. With more, the number of the position is unknown.
_MAX_UNACKNOWLEDGED = 20_000


class SavedPosition(BaseModel):
    """The position of a group in a stream, as a backup has it.

    Attributes:
        last_id: The id of the newest entry that was added to the stream.
        added: The number of entries that were added to it.
        stored_id: All entries up to this id were acknowledged.
        stored_number: The number of entries added up to that id, if known.
        pending: The number of delivered entries that were not acknowledged.
        lag: The number of entries that were not delivered, if known.
    """

    last_id: str
    added: int | None
    stored_id: str
    stored_number: int | None
    pending: int = 0
    lag: int | None = None

    @classmethod
    def after(cls, newest_stored: StreamId) -> Self:
        """Returns the position after a stored entry, for a backup without a position."""
        return cls(
            last_id=str(newest_stored),
            added=None,
            stored_id=str(newest_stored),
            stored_number=None,
        )


class GroupPositionService:
    """Reads and sets the position of one group."""

    def __init__(self, redis: Redis, store: EventStore, stream: str, group: str) -> None:
        self._redis = redis
        self._store = store
        self._stream = stream
        self._group = group

    async def read(self) -> SavedPosition | None:
        """Returns the position; None if there is no group.

        Everything up to `stored_id` is in a snapshot of the database that is taken afterwards.

        Raises:
            REDIS_ERRORS: Redis is unavailable.
        """
        stream = await stream_state(self._redis, self._stream)
        group = await group_info(self._redis, self._stream, self._group) if stream else None
        if stream is None or group is None:
            return None
        stored = await self._stored_id(group)
        return SavedPosition(
            last_id=str(stream.last),
            added=stream.added,
            stored_id=str(stored),
            stored_number=await self._number_of(stored, group),
            pending=group.pending,
            lag=group.lag,
        )

    async def resume(self, saved: SavedPosition | None) -> Loss | None:
        """Sets the group to a position and records what the group can no longer read.

        Calling it again, also after an interruption, is harmless.

        Args:
            saved: The position; None if the backup has none.

        Returns:
            The lost entries, None if there are none.

        Raises:
            REDIS_ERRORS: Redis is unavailable.
            DATABASE_ERRORS: PostgreSQL is unavailable.
        """
        if saved is None:
            newest = await self._store.newest_id()
            if newest is None:
                return None
            saved = SavedPosition.after(newest)
        last = StreamPosition(StreamId.parse(saved.last_id), saved.added)
        stream = await stream_state(self._redis, self._stream)
        if stream is None or was_replaced(last, stream):
            return await self._continue_new_stream(saved, stream)
        return await self._go_back(saved, stream)

    async def _stored_id(self, group: GroupInfo) -> StreamId:
        delivered = StreamId.parse(group.last_delivered_id)
        pending = await self._redis.xpending(self._stream, self._group)
        if not pending["pending"]:
            return delivered
        return min(delivered, read_id(pending["min"]).previous())

    async def _number_of(self, stored: StreamId, group: GroupInfo) -> int | None:
        """Returns the number of entries added up to an id at or before the position of the group."""
        if group.entries_read is None:
            return None
        between, after = 0, str(stored)
        while between < _MAX_UNACKNOWLEDGED:
            page = await self._redis.xrange(
                self._stream, f"({after}", group.last_delivered_id, count=_PAGE_ENTRIES
            )
            rows = cast("list[Row]", page)
            between += len(rows)
            if len(rows) < _PAGE_ENTRIES:
                return group.entries_read - between
            after = rows[-1][0].decode()
        return None

    async def _go_back(self, saved: SavedPosition, stream: StreamState) -> Loss | None:
        """Lets the group read again what followed the position, in the stream of the backup."""
        stored, number = StreamId.parse(saved.stored_id), saved.stored_number
        missed = _missed(StreamPosition(stored, number, stored), stream)
        loss = None
        if missed is not None:
            before = stream.first if stream.first is not None else stream.last.next()
            loss = Loss("trimmed_unread", missed.entries, stored, before)
            await self._store.record([loss])
            # The group then does not report the same entries again.
            number = stream.removed
        await self._set(stored, number)
        return loss

    async def _continue_new_stream(self, saved: SavedPosition, stream: StreamState | None) -> Loss:
        """Records everything that followed the position as lost; the group reads all of a new stream.

        A stream without entries continues the ids and the counters of the lost one. Its ids then
        stay above those that are stored, also if the clock of the new Redis is behind.
        """
        stored, last = StreamId.parse(saved.stored_id), StreamId.parse(saved.last_id)
        first = stream.first if stream is not None else None
        before = first if first is not None and first > last else await self._next_id(last)
        known = (saved.added or 0) - (saved.stored_number or saved.added or 0)
        loss = Loss("stream_gone", max(1, known), stored, before)
        await self._store.record([loss])
        if stream is None or not stream.added:
            await self._set(ZERO, 0)
            options = ("ENTRIESADDED", saved.added, "MAXDELETEDID", saved.last_id)
            arguments = options if saved.added else ()
            await self._redis.execute_command("XSETID", self._stream, saved.last_id, *arguments)  # type: ignore[no-untyped-call]  # redis-py lacks types here
            await self._set(last, saved.added)
        elif not await group_info(self._redis, self._stream, self._group):
            await self._set(ZERO, 0)
        return loss

    async def _set(self, position: StreamId, number: int | None) -> None:
        """Sets the position of the group; creates the group and the stream if they do not exist."""
        try:
            await self._redis.xgroup_create(
                self._stream, self._group, str(position), mkstream=True, entries_read=number
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
            await self._redis.xgroup_setid(
                self._stream, self._group, str(position), entries_read=number
            )

    async def _next_id(self, last: StreamId) -> StreamId:
        """Returns an id above all of the lost stream: ids are made from the clock."""
        seconds, microseconds = await self._redis.time()
        return max(StreamId(seconds * 1000 + microseconds // 1000, 0), last.next())


def _missed(position: StreamPosition, stream: StreamState) -> MissedEntries | None:
    """Counts the entries after the position that were trimmed; one if their number is unknown."""
    if position.number is not None:
        missed = count_missed(position, stream)
        return missed if missed is not None and missed.certain else None
    is_retained = stream.first is not None and stream.first <= position.id
    if is_retained or not stream.removed or stream.last <= position.id:
        return None
    return MissedEntries(1, certain=True)
