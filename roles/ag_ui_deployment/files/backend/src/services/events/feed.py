"""A feed: the live records of one scope, which any number of clients read at their own pace.

What is published together is joined once and shared by all readers; a reader is a position. A feed
holds what not all of its readers have read, within bounds of bytes and events; a reader that falls
behind what is held is told so, and its client can resume from its last id.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from src.models.event import StreamId
from src.services.event_service import JobState

# Readers write one batch at a time: large enough that its price is the copying, small enough that
# a slow connection holds little.
BATCH_BYTES = 128 * 1024
# To look for the slowest of all readers has its price: only when this much more is held.
_LOOK_AFTER_BYTES = 256 * 1024


class FeedRecord(NamedTuple):
    """One entry of the stream as clients get it: its frames, encoded once.

    `before` and `after` are the states of its job around it, None outside all runs. `recalled`
    tells that the process has just learned of the job, which was on before.
    """

    id: StreamId
    frames: bytes
    before: JobState | None = None
    after: JobState | None = None
    recalled: bool = False

    @property
    def job_id(self) -> str | None:
        return self.after.job_id if self.after else None

    @property
    def ends_run(self) -> bool:
        return self.after is not None and self.after.terminal_id == self.id

    @property
    def changes_ownership(self) -> bool:
        """Whether it names the owner or the workspace of a job that was on before it."""
        before, after = self.before, self.after
        if before is None or after is None:
            return False
        return before.owner != after.owner or before.workspace != after.workspace


class Batch(NamedTuple):
    """Consecutive records, joined. `alone` is the one record of a batch that is to be looked at.

    `newest` is the id of the last record, None for a notice, which stems from no record.
    """

    frames: bytes
    events: int
    newest: StreamId | None = None
    ends_run: bool = False
    alone: FeedRecord | None = None


class FeedLimits(NamedTuple):
    """What a feed holds at most."""

    bytes: int
    events: int


class FellBehindError(Exception):
    """The reader was slower than the feed's bounds allow."""


class Reader:
    """A client's place in a feed: the position of the batch that it gets next."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Feed:
    """`needs_inspection` tells which records readers have to look at one by one."""

    def __init__(self, limits: FeedLimits, needs_inspection: Callable[[FeedRecord], bool]) -> None:
        self._limits = limits
        self._needs_inspection = needs_inspection
        self._batches: deque[Batch] = deque()
        self._start = 0
        self._bytes = 0
        self._events = 0
        # In the order of their coming: a set of them would tell them in another each time.
        self._listeners: dict[Callable[[], None], None] = {}
        self._readers: set[Reader] = set()
        self._look_at = _LOOK_AFTER_BYTES
        self.closed = False

    @property
    def end(self) -> int:
        """The position after the newest batch."""
        return self._start + len(self._batches)

    @property
    def readers(self) -> int:
        return len(self._readers)

    def join(self) -> Reader:
        """A reader of what comes from now on; to be paired with leave()."""
        reader = Reader(self.end)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def append(self, records: Sequence[FeedRecord]) -> None:
        """Add records, and tell those who listen."""
        for batch in _joined(records, self._needs_inspection):
            self._add(batch)
        self._tell()

    def notify(self, frames: bytes) -> None:
        """Add frames that stem from no record."""
        self._add(Batch(frames, 0))
        self._tell()

    def close(self) -> None:
        """End the feed: readers get what they have not read yet, and then no more."""
        self.closed = True
        self._tell()

    def holds(self, position: int) -> bool:
        """Whether a reader at this position has missed nothing."""
        return position >= self._start

    def read(self, position: int) -> Batch | None:
        """The batch at a position, None if it is yet to come. Raises FellBehindError."""
        if position < self._start:
            raise FellBehindError
        if position >= self.end:
            return None
        return self._batches[position - self._start]

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this whenever something is added, and when the feed is closed, until it is told."""
        self._listeners[listener] = None

    def forget(self, listener: Callable[[], None]) -> None:
        self._listeners.pop(listener, None)

    def _add(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._bytes += len(batch.frames)
        self._events += batch.events
        if self._bytes >= self._look_at:
            self._let_go_of_what_all_have()
        while self._bytes > self._limits.bytes or self._events > self._limits.events:
            if len(self._batches) == 1:
                break
            self._drop_oldest()

    def _let_go_of_what_all_have(self) -> None:
        slowest = min((reader.position for reader in self._readers), default=self.end)
        while self._start < slowest:
            self._drop_oldest()
        self._look_at = self._bytes + _LOOK_AFTER_BYTES

    def _drop_oldest(self) -> None:
        oldest = self._batches.popleft()
        self._bytes -= len(oldest.frames)
        self._events -= oldest.events
        self._start += 1

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _joined(
    records: Sequence[FeedRecord], needs_inspection: Callable[[FeedRecord], bool]
) -> Iterator[Batch]:
    start = size = 0
    for place, record in enumerate(records):
        if needs_inspection(record):
            yield from _batch(records[start:place])
            yield Batch(record.frames, 1, record.id, record.ends_run, record)
            start, size = place + 1, 0
            continue
        size += len(record.frames)
        if size >= BATCH_BYTES:
            yield from _batch(records[start : place + 1])
            start, size = place + 1, 0
    yield from _batch(records[start:])


def _batch(records: Sequence[FeedRecord]) -> Iterator[Batch]:
    if records:
        frames = b"".join([record.frames for record in records])
        yield Batch(frames, len(records), records[-1].id, records[-1].ends_run)
