"""What Redis's counters prove about entries that were removed before they were read. Pure.

Redis numbers the entries of a stream as they are added: `entries-added` is the number of the
newest, and `entries-added` less `length` is how many have been removed since. A reader that knows
the number of the entry it read last can tell how many it will never read, once the first entry
that is left lies behind its place. The counters do not tell an entry that was trimmed from one
that was deleted (XDEL), but `max-deleted-entry-id` tells above which id nothing was deleted.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

from src.models.event import ZERO, StreamId
from src.services.shield.parser import read_id


class StreamState(NamedTuple):
    """What XINFO STREAM says. `first` is None while the stream is empty.

    `added` counts all entries that ever were, `last` is the id of the newest of them, and `deleted`
    the greatest id that was deleted by hand (XDEL).
    """

    first: StreamId | None
    last: StreamId
    added: int
    length: int
    deleted: StreamId

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
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
        """How many entries were trimmed or deleted."""
        return self.added - self.length


class StreamPosition(NamedTuple):
    """How far a reader has come: an id, and how many entries had been added up to it, if known.

    Entries up to `confirmed_until` that were deleted by hand are in that number.
    """

    id: StreamId
    number: int | None = None
    confirmed_until: StreamId = ZERO

    def moved(self, last: StreamId, entries: int) -> "StreamPosition":
        """The place after so many entries more, of which this id is the last."""
        number = None if self.number is None else self.number + entries
        return StreamPosition(last, number, self.confirmed_until)


class Missing(NamedTuple):
    """How many entries nobody will read; where that is not certain, all may have been deleted."""

    entries: int
    certain: bool


def is_another(place: StreamPosition, stream: StreamState | None) -> bool:
    """Whether this cannot be the stream, as it was, in which a reader had come to its place.

    Then it was deleted or flushed, and perhaps begun again, or Redis has lost its last writes.
    """
    if stream is None or stream.last < place.id:
        return True
    if place.number is not None and stream.added < place.number:
        return True
    return not stream.removed and stream.first is not None and stream.first > place.id


def missed(
    place: StreamPosition, stream: StreamState, read_since: Iterable[StreamId] = ()
) -> Missing | None:
    """What a reader that gets every entry has missed behind its place.

    `read_since` are the ids that it read behind the place before it asked for `stream`: they may
    have been trimmed meanwhile.
    """
    if place.number is None or _begins_before(place.id, stream):
        return None
    gone = stream.removed - place.number
    read = sum(stream.first is None or one < stream.first for one in read_since)
    if gone <= read:
        return None
    return Missing(gone - read, certain=stream.deleted <= place.confirmed_until)


def _begins_before(place: StreamId, stream: StreamState) -> bool:
    """Whether an entry at or below the place is left, so that none above it was trimmed."""
    return stream.first is not None and stream.first <= place
