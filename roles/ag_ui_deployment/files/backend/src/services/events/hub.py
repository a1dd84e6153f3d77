"""Distributes the records of the stream to the feeds of the clients of this process.

Invariants:

- Records enter in stream order, each once, unless Redis lost the end of the stream (step_back). A
  reader of a feed gets those of its scope in order.
- attach() runs between two publications. What it captures (recent records, states) and what the
  feed brings from its position on have no gap and no overlap.
- The ring buffer holds every record above `low_watermark`. Records at or below it must come from
  the history.
- The cost of a record does not depend on the number of clients or feeds, except for the admins of
  its workspace.
- Records are kept in the current version of the protocol. A record that differs in another version
  is translated once for all feeds of that version.
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
from src.services.events.feed import Feed, FeedLimits, FeedReader, FeedRecord
from src.services.events.feed_index import FeedIndex
from src.services.events.gaps import Gap
from src.services.events.job_projector import JobProjector
from src.services.events.subscription import JobScope


@dataclass(frozen=True, slots=True)
class Attachment:
    """The position of a client in the stream, captured at one moment.

    Later records come from the feed, from the position of the reader on.

    Attributes:
        feed: The feed of the scope.
        reader: The position in the feed.
        recent: The records of the scope after the cursor that the ring buffer holds.
        low_watermark: There may be other records at or below this id.
        last_id: The id up to which the stream was read.
        jobs: The active jobs of the scope. For the scope of one job: that job in any state.
    """

    feed: Feed
    reader: FeedReader
    recent: Sequence[FeedRecord]
    low_watermark: StreamId
    last_id: StreamId
    jobs: Sequence[JobState]


class EventHub:
    """The ring buffer of recent records, and the feeds by protocol version."""

    def __init__(self, settings: Settings, jobs: JobProjector) -> None:
        self._ring_max_events = settings.RING_MAX_EVENTS
        self._ring_max_bytes = settings.RING_MAX_BYTES
        self._ring: deque[FeedRecord] = deque()
        self._ring_bytes = 0
        limits = FeedLimits(settings.CLIENT_BUFFER_BYTES, settings.CLIENT_BUFFER_EVENTS)
        self._feeds = {version: FeedIndex(limits) for version in ProtocolVersion}
        self.jobs = jobs
        self.low_watermark = ZERO
        self.last_id = ZERO
        # The latest gap. A client that resumes from before it must be notified too.
        self.gap: Gap | None = None
        self.started = asyncio.Event()
        # Set and replaced by a new event whenever last_id advances.
        self.progress = asyncio.Event()
        self.draining = False

    @property
    def feeds(self) -> Sequence[Feed]:
        """The feeds of all versions."""
        return [feed for feeds in self._feeds.values() for feed in feeds]

    def start(self, low_watermark: StreamId) -> None:
        """Starts after an id: nothing at or below it is published."""
        self.low_watermark = self.last_id = low_watermark

    def publish(self, records: Sequence[FeedRecord], last_id: StreamId) -> None:
        """Publishes records in stream order; the stream was read up to `last_id`."""
        self.last_id = last_id
        for record in records:
            self._add_to_ring(record)
        for version, feeds in self._feeds.items():
            if not len(feeds):
                continue
            for feed, visible in feeds.route(_translated(records, version)).items():
                feed.append(visible)
        self.progress.set()
        self.progress = asyncio.Event()

    def step_back(self, last_id: StreamId) -> None:
        """Continues at a lower id, after which the stream lacks what was published."""
        self.last_id = last_id

    def publish_gap(self, gap: Gap) -> int:
        """Notifies every client of lost events; returns the number of clients."""
        self.gap = gap
        frames = encode([gap.notice()])
        for feed in self.feeds:
            feed.notify(frames)
        return sum(feed.readers for feed in self.feeds)

    def attach(
        self, scope: JobScope, cursor: StreamId | None, version: ProtocolVersion = CURRENT
    ) -> Attachment:
        """Joins the live stream; must be paired with detach().

        Args:
            scope: What the client may see.
            cursor: The last id that the client has; None to start from the current state.
            version: The protocol version of the frames of the feed. All other frames are in the
                current version.

        Returns:
            The captured state and the position in the feed.
        """
        feed = self._feeds[version].get_or_create(scope)
        if self.draining:
            feed.close()
        return Attachment(
            feed=feed,
            reader=feed.join(),
            recent=self._recent_records(scope, cursor) if cursor is not None else [],
            low_watermark=self.low_watermark,
            last_id=self.last_id,
            jobs=list(self._jobs_of(scope)),
        )

    def detach(
        self, scope: JobScope, reader: FeedReader, version: ProtocolVersion = CURRENT
    ) -> None:
        """Leaves the live stream; removes the feed if it has no other readers."""
        feeds = self._feeds[version]
        feed = feeds.get(scope)
        feed.leave(reader)
        if not feed.readers:
            feeds.remove(scope)

    def drain(self) -> None:
        """Ends all streams after the clients have read what was published."""
        self.draining = True
        self.started.set()
        self.progress.set()
        for feed in self.feeds:
            feed.close()

    def _recent_records(self, scope: JobScope, cursor: StreamId) -> list[FeedRecord]:
        records: list[FeedRecord] = []
        for record in reversed(self._ring):
            if record.id <= cursor:
                break
            if scope.shows(record):
                records.append(record)
        records.reverse()
        return records

    def _jobs_of(self, scope: JobScope) -> Collection[JobState]:
        if scope.job_id is not None:
            state = self.jobs.state(scope.job_id)
            return [state] if state else []
        states = self.jobs.active.values()
        return states if scope.visibility.everything else list(filter(scope.sees, states))

    def _add_to_ring(self, record: FeedRecord) -> None:
        self._ring.append(record)
        self._ring_bytes += len(record.frames)
        while len(self._ring) > self._ring_max_events or self._ring_bytes > self._ring_max_bytes:
            oldest = self._ring.popleft()
            self._ring_bytes -= len(oldest.frames)
            self.low_watermark = oldest.id


def _translated(records: Sequence[FeedRecord], version: ProtocolVersion) -> Sequence[FeedRecord]:
    if version is CURRENT:
        return records
    return [record._replace(frames=translated(record.frames, version)) for record in records]
