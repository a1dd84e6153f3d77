"""The hub: this process's picture of the stream, and the feeds that its clients read.

Invariants:
- records enter in stream order, each once; a reader of a feed sees those of its scope in order;
- attach() happens between two publications: what it captures (recent records, states) and what
  the feed brings from its position on join without a seam and without an overlap;
- the ring holds every record above `low_watermark`; what is at or below it must come from the history;
- the price of a record does not depend on how many clients or feeds there are, but for the admins
  of its workspace;
- records are kept in the current version of the protocol; one that another version has in another
  form is translated once for all of that version's feeds.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from src.config import Settings
from src.models.event import ZERO, StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui.sse import encode, translated
from src.services.event_service import JobState
from src.services.events.feed import Feed, FeedLimits, FeedRecord, Reader
from src.services.events.feed_index import FeedIndex
from src.services.events.gaps import Gap
from src.services.events.job_projector import JobProjector
from src.services.events.subscription import Scope


@dataclass(frozen=True, slots=True)
class Attachment:
    """A client's place in the stream, captured at one moment.

    `recent` are the records of its scope above its cursor that the ring holds, `low_watermark` the id
    at or below which there may be others, `last_id` the id up to which the stream was read,
    `jobs` those of its scope that run (or, where the scope is one job, that job in any state).
    From the reader's position on, the feed brings what comes later.
    """

    feed: Feed
    reader: Reader
    recent: Sequence[FeedRecord]
    low_watermark: StreamId
    last_id: StreamId
    jobs: Sequence[JobState]


class EventHub:
    def __init__(self, settings: Settings, jobs: JobProjector) -> None:
        self._ring_events = settings.RING_MAX_EVENTS
        self._ring_bytes = settings.RING_MAX_BYTES
        self._ring: deque[FeedRecord] = deque()
        self._ring_size = 0
        limits = FeedLimits(settings.CLIENT_BUFFER_BYTES, settings.CLIENT_BUFFER_EVENTS)
        self._feeds = {version: FeedIndex(limits) for version in ProtocolVersion}
        self.jobs = jobs
        self.low_watermark = ZERO
        self.last_id = ZERO
        # The latest; a client that comes back from before it has to be told too.
        self.gap: Gap | None = None
        self.started = asyncio.Event()
        # Set, and replaced by a new one, whenever last_id has advanced.
        self.progress = asyncio.Event()
        self.draining = False

    @property
    def feeds(self) -> Sequence[Feed]:
        """Those of all versions."""
        return [feed for feeds in self._feeds.values() for feed in feeds]

    def start(self, floor: StreamId) -> None:
        """Begin above an id: nothing at or below it will be published."""
        self.low_watermark = self.last_id = floor

    def publish(self, records: Sequence[FeedRecord], last_id: StreamId) -> None:
        """Add records in stream order; `last_id` is the id up to which the stream was read."""
        self.last_id = last_id
        for record in records:
            self._remember(record)
        for version, feeds in self._feeds.items():
            if not len(feeds):
                continue
            for feed, visible in feeds.sort(_in_version(records, version)).items():
                feed.append(visible)
        self.progress.set()
        self.progress = asyncio.Event()

    def publish_gap(self, gap: Gap) -> int:
        """Tell every client what nobody has any more; gives how many these are."""
        self.gap = gap
        frames = encode([gap.notice()])
        for feed in self.feeds:
            feed.notify(frames)
        return sum(feed.readers for feed in self.feeds)

    def attach(
        self, scope: Scope, cursor: StreamId | None, version: ProtocolVersion = CURRENT
    ) -> Attachment:
        """Join the live stream; to be paired with detach().

        The feed has frames of the version, everything else is in the current one.
        """
        feed = self._feeds[version].open(scope)
        if self.draining:
            feed.close()
        return Attachment(
            feed=feed,
            reader=feed.join(),
            recent=self._recent(scope, cursor) if cursor is not None else [],
            low_watermark=self.low_watermark,
            last_id=self.last_id,
            jobs=list(self._jobs_of(scope)),
        )

    def detach(self, scope: Scope, reader: Reader, version: ProtocolVersion = CURRENT) -> None:
        feeds = self._feeds[version]
        feed = feeds.get(scope)
        feed.leave(reader)
        if not feed.readers:
            feeds.remove(scope)

    def drain(self) -> None:
        """Let go of every client: each gets what it has not read yet, then its stream ends."""
        self.draining = True
        self.started.set()
        self.progress.set()
        for feed in self.feeds:
            feed.close()

    def _recent(self, scope: Scope, cursor: StreamId) -> list[FeedRecord]:
        found: list[FeedRecord] = []
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
        return states if scope.visibility.everything else list(filter(scope.sees, states))

    def _remember(self, record: FeedRecord) -> None:
        self._ring.append(record)
        self._ring_size += len(record.frames)
        while len(self._ring) > self._ring_events or self._ring_size > self._ring_bytes:
            oldest = self._ring.popleft()
            self._ring_size -= len(oldest.frames)
            self.low_watermark = oldest.id


def _in_version(records: Sequence[FeedRecord], version: ProtocolVersion) -> Sequence[FeedRecord]:
    if version is CURRENT:
        return records
    return [record._replace(frames=translated(record.frames, version)) for record in records]
