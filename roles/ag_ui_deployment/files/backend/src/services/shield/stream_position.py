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

    def moved(self, last: StreamId, entries: int) -> "StreamPosition":
        """Returns the position after `entries` more entries; `last` is the id of the last one."""
        number = None if self.number is None else self.number + entries
        return StreamPosition(last, number, self.confirmed_until)


class Missing(NamedTuple):
    """The number of entries that were missed. If not `certain`, all may have been deleted."""

    entries: int
    certain: bool


def is_another(place: StreamPosition, stream: StreamState | None) -> bool:
    """Whether the stream was replaced since the reader reached its position.

    Then it was deleted or flushed, and possibly created again, or Redis lost its last writes.
    """
    if stream is None or stream.last < place.id:
        return True
    if place.number is not None and stream.added < place.number:
        return True
    return not stream.removed and stream.first is not None and stream.first > place.id


def missed(
    place: StreamPosition, stream: StreamState, read_since: Iterable[StreamId] = ()
) -> Missing | None:
    """Counts the entries that a reader of the whole stream has missed after its position.

    Args:
        place: The position of the reader.
        stream: The state of the stream now.
        read_since: The ids that it read after its position and before it asked for the state. They
            may have been trimmed in the meantime.

    Returns:
        The missed entries; None if there are none or the number is unknown.
    """
    if place.number is None or _begins_before(place.id, stream):
        return None
    gone = stream.removed - place.number
    read = sum(stream.first is None or one < stream.first for one in read_since)
    if gone <= read:
        return None
    return Missing(gone - read, certain=stream.deleted <= place.confirmed_until)


def _begins_before(place: StreamId, stream: StreamState) -> bool:
    """Whether an entry at or before the position is retained, so that none after it was trimmed."""
    return stream.first is not None and stream.first <= place
