"""A stream's history in memory, with the same limits as Redis and PostgreSQL."""

from collections.abc import AsyncIterator, Collection, Sequence

from src.models.event import ZERO, ShieldEvent, StreamId
from src.services.events.gaps import GapReason
from src.services.events.hub import EventHub
from src.services.events.job_projector import JobProjector
from tests.support.builders import settings_of


class MemoryHistory:
    """A history of which Redis has dropped the `trimmed` oldest events.

    PostgreSQL has stored the `stored` oldest ones.
    """

    def __init__(self, trimmed: int = 0, page: int = 3, stored: int | None = None) -> None:
        self.events: list[ShieldEvent] = []
        self.gap: GapReason | None = None
        self._trimmed = trimmed
        self._stored = stored
        self._page = page

    async def redis_low_watermark(self) -> StreamId:
        """Return the id above which Redis has all entries."""
        retained = self.events[self._trimmed :]
        if retained:
            return retained[0].id.previous()
        return self.events[-1].id if self.events else ZERO

    async def newest_id(self) -> StreamId:
        """Return the id of the newest entry."""
        return self.events[-1].id if self.events else ZERO

    async def gap_after(self, _cursor: StreamId) -> GapReason | None:
        """Return the gap that the test has set, for any cursor."""
        return self.gap

    async def job_events(
        self, job_ids: Collection[str], before: StreamId
    ) -> AsyncIterator[Sequence[ShieldEvent]]:
        """Yield the stored events of the jobs before a stream id."""
        yield [
            one for one in self.events[: self._stored] if one.job_id in job_ids and one.id < before
        ]

    async def pages(
        self, after: StreamId, before: StreamId, job_id: str | None = None
    ) -> AsyncIterator[Sequence[ShieldEvent]]:
        """Yield the events between two stream ids (exclusive) in pages."""
        found = [
            one
            for one in self.events
            if after < one.id < before and (job_id is None or one.job_id == job_id)
        ]
        for start in range(0, len(found), self._page):
            yield found[start : start + self._page]


class Process:
    """One instance of the backend: hub and history, without the stream tailer."""

    def __init__(
        self, history: MemoryHistory, ring: int = 20_000, began_at: int = 0, **values: int
    ) -> None:
        self.history = history
        settings = settings_of(RING_MAX_EVENTS=ring, **values)
        self.hub = EventHub(settings, JobProjector(history.job_events))
        self._began_at = began_at

    async def begin(self, events: Sequence[ShieldEvent]) -> None:
        """Start with these events on the stream; the first `began_at` are before its start."""
        self.history.events = list(events)
        past = events[: self._began_at]
        self.hub.start(past[-1].id if past else ZERO)
        jobs = {one.job_id for one in past if one.job_id}
        await self.hub.jobs.rehydrate(jobs, self.hub.low_watermark.next())
        self._publish(events[self._began_at :])
        self.hub.started.set()

    def publish(self, *events: ShieldEvent) -> None:
        """Add new events to the stream."""
        self.history.events += events
        self._publish(events)

    async def publish_like_the_tailer(self, *events: ShieldEvent) -> None:
        """Add new events to the stream and rehydrate unknown jobs, like the stream tailer."""
        self.history.events += events
        for event in events:
            jobs = self.hub.jobs
            if unknown := jobs.unknown_jobs([event]):
                await jobs.rehydrate(unknown, event.id)
            self.hub.publish(jobs.apply([event], rehydrated=unknown), event.id)

    def _publish(self, events: Sequence[ShieldEvent]) -> None:
        for event in events:
            self.hub.publish(self.hub.jobs.apply([event]), event.id)
