"""The hub: this process's picture of the stream, and the feeds that its clients read.

Invariants:
- records enter in stream order, each once; a reader of a feed sees those of its scope in order;
- attach() happens between two publications: what it captures (recent records, states) and what
  the feed brings from its position on join without a seam and without an overlap;
- the ring holds every record above `floor`; what is at or below it must come from the history.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from src.config import Settings
from src.models.event import ZERO, StreamId
from src.services.event_feed import Feed, Record
from src.services.event_fold import StreamFold
from src.services.event_frames import encode
from src.services.event_service import JobState, prelude


@dataclass(frozen=True, slots=True)
class Scope:
    """What a client is shown: one job, the jobs of one owner, or (both None) everything."""

    owner: UUID | None = None
    job_id: str | None = None

    def shows(self, record: Record) -> bool:
        if self.job_id is not None:
            return record.job_id == self.job_id
        return self.owner is None or record.owner == self.owner


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A client's place in the stream, captured at one moment.

    `recent` are the records of its scope above its cursor that the ring holds, `floor` the id
    at or below which there may be others, `last_id` the id up to which the stream was read,
    `jobs` those of its scope that run (or, where the scope is one job, that job in any state).
    From `position` on, the feed brings what comes later.
    """

    feed: Feed
    position: int
    recent: Sequence[Record]
    floor: StreamId
    last_id: StreamId
    jobs: Sequence[JobState]


class EventHub:
    def __init__(self, settings: Settings, jobs: StreamFold) -> None:
        self._max_feed_bytes = settings.CLIENT_BUFFER_BYTES
        self._ring_events = settings.RING_MAX_EVENTS
        self._ring_bytes = settings.RING_MAX_BYTES
        self._ring: deque[Record] = deque()
        self._ring_size = 0
        self._feeds: dict[Scope, Feed] = {}
        self.jobs = jobs
        self.floor = ZERO
        self.last_id = ZERO
        self.started = asyncio.Event()
        # Set, and replaced by a new one, whenever last_id has advanced.
        self.progress = asyncio.Event()
        self.draining = False

    def start(self, floor: StreamId) -> None:
        """Begin above an id: nothing at or below it will be published."""
        self.floor = self.last_id = floor

    def publish(self, records: Sequence[Record], last_id: StreamId) -> None:
        """Add records in stream order; `last_id` is the id up to which the stream was read."""
        self.last_id = last_id
        for record in records:
            self._remember(record)
        for scope, feed in self._feeds.items():
            visible = _visible(scope, records)
            if visible:
                feed.append(visible)
        self.progress.set()
        self.progress = asyncio.Event()

    def attach(self, scope: Scope, cursor: StreamId | None) -> Attachment:
        """Join the live stream; to be paired with detach()."""
        feed = self._feeds.get(scope)
        if feed is None:
            feed = self._feeds[scope] = Feed(self._max_feed_bytes)
        if self.draining:
            feed.close()
        feed.readers += 1
        return Attachment(
            feed=feed,
            position=feed.end,
            recent=self._recent(scope, cursor) if cursor is not None else [],
            floor=self.floor,
            last_id=self.last_id,
            jobs=list(self._jobs_of(scope)),
        )

    def detach(self, scope: Scope) -> None:
        feed = self._feeds[scope]
        feed.readers -= 1
        if not feed.readers:
            del self._feeds[scope]

    def drain(self) -> None:
        """Let go of every client: each gets what it has not read yet, then its stream ends."""
        self.draining = True
        self.started.set()
        self.progress.set()
        for feed in self._feeds.values():
            feed.close()

    def _recent(self, scope: Scope, cursor: StreamId) -> list[Record]:
        found: list[Record] = []
        for record in reversed(self._ring):
            if record.id <= cursor:
                break
            if scope.shows(record):
                found.append(record)
        found.reverse()
        return found

    def _jobs_of(self, scope: Scope) -> Collection[JobState]:
        if scope.job_id is not None:
            state = self.jobs.state(scope.job_id)
            return [state] if state else []
        states = self.jobs.active.values()
        if scope.owner is None:
            return states
        return [state for state in states if state.owner == scope.owner]

    def _remember(self, record: Record) -> None:
        self._ring.append(record)
        self._ring_size += len(record.frames)
        while len(self._ring) > self._ring_events or self._ring_size > self._ring_bytes:
            oldest = self._ring.popleft()
            self._ring_size -= len(oldest.frames)
            self.floor = oldest.id


def _visible(scope: Scope, records: Sequence[Record]) -> Sequence[Record]:
    if scope == EVERYTHING:
        return records
    return [_with_past(scope, record) for record in records if scope.shows(record)]


def _with_past(scope: Scope, record: Record) -> Record:
    """A record that reveals whose job it is brings its owner the run so far with it."""
    before = record.before
    if scope.owner is None or before is None or before.owner == scope.owner:
        return record
    return Record(record.id, encode(prelude(before)) + record.frames, before, record.after)
