"""Detects from Redis counters whether entries were removed before they were read. Pure.

Redis numbers the entries of a stream as they are added. `entries-added` is the number of the newest
entry, and `entries-added` minus `length` is the number of removed entries. A reader that knows the
number of its last entry can tell how many entries it will never read, once the first retained entry
is after its position. The counters do not distinguish a trimmed entry from a deleted one (XDEL),
but no entry above `max-deleted-entry-id` was deleted.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

from src.models.event import ZERO, StreamId
from src.services.shield.parser import read_id


class StreamState(NamedTuple):
    """The result of XINFO STREAM.

    Attributes:
        first: The id of the first entry; None while the stream is empty.
        last: The id of the newest entry that was ever added.
        added: The number of entries that were ever added.
        length: The number of retained entries.
        deleted: The greatest id that was deleted with XDEL.
    """

    first: StreamId | None
    last: StreamId
    added: int
    length: int
    deleted: StreamId

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """Parses the response of XINFO STREAM."""
        length = info["length"]
        return cls(
            first=read_id(info["recorded-first-entry-id"]) if length else None,
            last=read_id(info["last-generated-id"]),
            added=info["entries-added"],
            length=length,
            deleted=read_id(info["max-deleted-entry-id"]),
        )

    @property
    def removed(self) -> int:
        """The number of trimmed or deleted entries."""
        return self.added - self.length


class StreamPosition(NamedTuple):
    """The position of a reader: an id, and the number of entries added up to it, if known.

    The number includes entries up to `confirmed_until` that were deleted with XDEL.
    """

    id: StreamId
    number: int | None = None
    confirmed_until: StreamId = ZERO

    def advanced(self, last: StreamId, entries: int) -> "StreamPosition":
        """Returns the position after `entries` more entries; `last` is the id of the last one."""
        number = None if self.number is None else self.number + entries
        return StreamPosition(last, number, self.confirmed_until)


class MissedEntries(NamedTuple):
    """The number of entries that were missed. If not `certain`, all may have been deleted."""

    entries: int
    certain: bool


def was_replaced(position: StreamPosition, stream: StreamState | None) -> bool:
    """Whether the stream was replaced since the reader reached its position.

    Then it was deleted or flushed, and possibly created again, or Redis lost its last writes.
    """
    if stream is None or stream.last < position.id:
        return True
    if position.number is not None and stream.added < position.number:
        return True
    return not stream.removed and stream.first is not None and stream.first > position.id


def count_missed(
    position: StreamPosition, stream: StreamState, read_since: Iterable[StreamId] = ()
) -> MissedEntries | None:
    """Counts the entries that a reader of the whole stream has missed after its position.

    Args:
        position: The position of the reader.
        stream: The state of the stream now.
        read_since: The ids that it read after its position and before it asked for the state. They
            may have been trimmed in the meantime.

    Returns:
        The missed entries; None if there are none or the number is unknown.
    """
    if position.number is None or _retains_up_to(position.id, stream):
        return None
    removed = stream.removed - position.number
    read = sum(stream.first is None or entry_id < stream.first for entry_id in read_since)
    if removed <= read:
        return None
    return MissedEntries(removed - read, certain=stream.deleted <= position.confirmed_until)


def _retains_up_to(position: StreamId, stream: StreamState) -> bool:
    """Whether an entry at or before the position is retained, so that none after it was trimmed."""
    return stream.first is not None and stream.first <= position
