"""Holds the live records of one scope for any number of clients with different speeds.

Records that are published together are joined once and shared by all readers; a reader is a
position. A feed holds the batches that not all of its readers have read, up to a limit of bytes and
events. A reader that falls behind gets FellBehindError, and its client can resume from its last id.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from src.models.event import StreamId
from src.services.event_service import JobState

# Readers write one batch at a time: large enough that copying dominates its cost, small enough that
# a slow connection holds little memory.
BATCH_BYTES = 128 * 1024
# Finding the slowest reader iterates over all readers, so it is done once per this many bytes.
_TRIM_INTERVAL_BYTES = 256 * 1024


class FeedRecord(NamedTuple):
    """One entry of the stream, encoded once for all clients.

    Attributes:
        id: The id of the entry.
        frames: The encoded frames, in the current protocol version.
        before: The state of the job before the entry; None for a new job or outside all runs.
        after: The state of the job after the entry; None outside all runs.
        rehydrated: Whether the process has just loaded the job, which had started before.
    """

    id: StreamId
    frames: bytes
    before: JobState | None = None
    after: JobState | None = None
    rehydrated: bool = False

    @property
    def job_id(self) -> str | None:
        return self.after.job_id if self.after else None

    @property
    def ends_run(self) -> bool:
        return self.after is not None and self.after.terminal_id == self.id

    @property
    def changes_ownership(self) -> bool:
        """Whether it changes the owner or workspace of a job that had started before it."""
        before, after = self.before, self.after
        if before is None or after is None:
            return False
        return before.owner != after.owner or before.workspace != after.workspace


class Batch(NamedTuple):
    """Consecutive records, joined.

    Attributes:
        frames: The frames of all records.
        events: The number of records.
        newest_id: The id of the last record; None for a notice, which has no record.
        ends_run: Whether the last record ends the run of its job.
        record_to_inspect: The only record of a batch that readers must inspect.
    """

    frames: bytes
    events: int
    newest_id: StreamId | None = None
    ends_run: bool = False
    record_to_inspect: FeedRecord | None = None


class FeedLimits(NamedTuple):
    """The limits of a feed."""

    bytes: int
    events: int


class FellBehindError(Exception):
    """The reader was slower than the limits of the feed allow."""


class FeedReader:
    """The position of a client in a feed: the batch that it reads next."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Feed:
    """The batches of one scope.

    Args:
        limits: The maximum of bytes and events that the feed holds.
        needs_inspection: Selects records that readers must inspect one by one.
    """

    def __init__(self, limits: FeedLimits, needs_inspection: Callable[[FeedRecord], bool]) -> None:
        self._limits = limits
        self._needs_inspection = needs_inspection
        self._batches: deque[Batch] = deque()
        self._start = 0
        self._bytes = 0
        self._events = 0
        # Keeps insertion order; a set would notify in arbitrary order.
        self._listeners: dict[Callable[[], None], None] = {}
        self._readers: set[FeedReader] = set()
        self._trim_at_bytes = _TRIM_INTERVAL_BYTES
        self.closed = False

    @property
    def end(self) -> int:
        """The position after the newest batch."""
        return self._start + len(self._batches)

    @property
    def readers(self) -> int:
        return len(self._readers)

    def join(self) -> FeedReader:
        """Adds a reader of everything that follows; must be paired with leave()."""
        reader = FeedReader(self.end)
        self._readers.add(reader)
        return reader

    def leave(self, reader: FeedReader) -> None:
        self._readers.discard(reader)

    def append(self, records: Sequence[FeedRecord]) -> None:
        """Adds records and notifies the listeners."""
        for batch in _batches_of(records, self._needs_inspection):
            self._add(batch)
        self._notify_listeners()

    def notify(self, frames: bytes) -> None:
        """Adds frames that have no record."""
        self._add(Batch(frames, 0))
        self._notify_listeners()

    def close(self) -> None:
        """Closes the feed. Readers still get the batches that they have not read."""
        self.closed = True
        self._notify_listeners()

    def has(self, position: int) -> bool:
        """Whether no batch from this position on was dropped."""
        return position >= self._start

    def read(self, position: int) -> Batch | None:
        """Returns the batch at a position; None if there is none yet.

        Raises:
            FellBehindError: The batch was dropped.
        """
        if position < self._start:
            raise FellBehindError
        if position >= self.end:
            return None
        return self._batches[position - self._start]

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Calls the listener after each addition and when the feed is closed."""
        self._listeners[listener] = None

    def remove_listener(self, listener: Callable[[], None]) -> None:
        self._listeners.pop(listener, None)

    def _add(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._bytes += len(batch.frames)
        self._events += batch.events
        if self._bytes >= self._trim_at_bytes:
            self._drop_batches_read_by_all()
        while self._bytes > self._limits.bytes or self._events > self._limits.events:
            if len(self._batches) == 1:
                break
            self._drop_oldest()

    def _drop_batches_read_by_all(self) -> None:
        slowest = min((reader.position for reader in self._readers), default=self.end)
        while self._start < slowest:
            self._drop_oldest()
        self._trim_at_bytes = self._bytes + _TRIM_INTERVAL_BYTES

    def _drop_oldest(self) -> None:
        oldest = self._batches.popleft()
        self._bytes -= len(oldest.frames)
        self._events -= oldest.events
        self._start += 1

    def _notify_listeners(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _batches_of(
    records: Sequence[FeedRecord], needs_inspection: Callable[[FeedRecord], bool]
) -> Iterator[Batch]:
    start = size = 0
    for index, record in enumerate(records):
        if needs_inspection(record):
            yield from _batch(records[start:index])
            yield Batch(record.frames, 1, record.id, record.ends_run, record)
            start, size = index + 1, 0
            continue
        size += len(record.frames)
        if size >= BATCH_BYTES:
            yield from _batch(records[start : index + 1])
            start, size = index + 1, 0
    yield from _batch(records[start:])


def _batch(records: Sequence[FeedRecord]) -> Iterator[Batch]:
    if records:
        frames = b"".join([record.frames for record in records])
        yield Batch(frames, len(records), records[-1].id, records[-1].ends_run)
