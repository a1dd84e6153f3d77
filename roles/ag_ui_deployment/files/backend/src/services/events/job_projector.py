"""Transforms events into records and caches the states of recent jobs."""

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

import structlog

from src.models.event import ShieldEvent, StreamId
from src.services.agui.sse import encode, marker
from src.services.event_service import JobState, fold
from src.services.events.feed import FeedRecord
from src.services.shield.event_types import belongs_to_run
from src.utils.event_loop import cooperative_iter

logger = structlog.get_logger(__name__)

_ENDED_MAX = 2_000
_ACTIVE_MAX = 10_000

LoadHistory = Callable[[Collection[str], StreamId], AsyncIterator[Sequence[ShieldEvent]]]


class JobProjector:
    """Transforms events, given in stream order, into records.

    A job without a cached state (new, or evicted) must be loaded with rehydrate() first.
    """

    def __init__(self, load_history: LoadHistory) -> None:
        self._load_history = load_history
        self._active: OrderedDict[str, JobState] = OrderedDict()
        self._ended: OrderedDict[str, JobState] = OrderedDict()
        self._dropped: Counter[str] = Counter()
        # Jobs that were loaded and have had no record since.
        self._newly_rehydrated: set[str] = set()

    @property
    def active(self) -> Mapping[str, JobState]:
        """The jobs that have not ended; the one with the latest event is last."""
        return self._active

    def state(self, job_id: str) -> JobState | None:
        return self._active.get(job_id) or self._ended.get(job_id)

    def unknown_jobs(self, events: Iterable[ShieldEvent]) -> set[str]:
        """Returns the jobs of these events that apply() would treat as new."""
        return {
            event.job_id
            for event in events
            if event.job_id and belongs_to_run(event) and self.state(event.job_id) is None
        }

    async def rehydrate(self, job_ids: Collection[str], before: StreamId) -> None:
        """Loads the states of jobs as they were before an id.

        Raises:
            DATABASE_ERRORS: PostgreSQL is unavailable.
        """
        async for events in self._load_history(job_ids, before):
            async for event in cooperative_iter(events):
                self._restore(event)

    def _restore(self, event: ShieldEvent) -> None:
        if not (event.job_id and belongs_to_run(event)):
            return
        try:
            self._cache(fold(self.state(event.job_id), event).state)
        except Exception:
            logger.exception("event_not_folded", stream_id=str(event.id))

    def apply(
        self, events: Iterable[ShieldEvent], rehydrated: Collection[str] = ()
    ) -> list[FeedRecord]:
        """Transforms events into records; a dropped event has none.

        Args:
            events: Events in stream order, following those of the previous call.
            rehydrated: The jobs that were loaded for these events.

        Returns:
            The records in stream order.
        """
        if rehydrated:
            self._newly_rehydrated = self._newly_rehydrated.union(rehydrated) & self._active.keys()
        applied = map(self._apply_or_drop, events)
        records = [record for record in applied if record is not None]
        return self._mark_rehydrated(records) if self._newly_rehydrated else records

    def _mark_rehydrated(self, records: Sequence[FeedRecord]) -> list[FeedRecord]:
        """Marks the first record of each job that was loaded; dropped events have no record."""
        marked = [
            record._replace(rehydrated=record.job_id in self._newly_rehydrated)
            for record in records
        ]
        self._newly_rehydrated.difference_update(
            record.job_id for record in records if record.job_id
        )
        return marked

    def take_drop_counts(self) -> Mapping[str, int]:
        """Returns and resets the number of dropped events by reason."""
        dropped, self._dropped = self._dropped, Counter()
        return dropped

    def _apply_or_drop(self, event: ShieldEvent) -> FeedRecord | None:
        try:
            return self._apply(event)
        except Exception:
            # A defect of this code must cost one event and not stop the stream.
            logger.exception("event_not_folded", stream_id=str(event.id))
            self._dropped["defect"] += 1
            return None

    def _apply(self, event: ShieldEvent) -> FeedRecord | None:
        if not (event.job_id and belongs_to_run(event)):
            return FeedRecord(event.id, encode(fold(None, event).events, event.id))
        before = self.state(event.job_id)
        folded = fold(before, event)
        frames = encode(folded.events, event.id)
        self._cache(folded.state)
        if folded.dropped:
            self._dropped[folded.dropped] += 1
        elif not frames:
            frames = marker(event.id)
        return FeedRecord(event.id, frames, before, folded.state) if frames else None

    def _cache(self, state: JobState | None) -> None:
        if state is None:
            return
        if state.ended:
            self._active.pop(state.job_id, None)
            self._ended[state.job_id] = state
            _evict_oldest(self._ended, _ENDED_MAX)
        else:
            self._active[state.job_id] = state
            self._active.move_to_end(state.job_id)
            _evict_oldest(self._active, _ACTIVE_MAX)


def _evict_oldest(states: OrderedDict[str, JobState], maximum: int) -> None:
    while len(states) > maximum:
        states.popitem(last=False)
