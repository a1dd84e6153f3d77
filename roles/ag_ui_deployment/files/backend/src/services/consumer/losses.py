"""Entries that were lost before they could be stored: counted, logged, and told by /health."""

import time
from typing import Literal, NamedTuple

import structlog

from src.models.event import StreamId
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)

How = Literal["trimmed_pending", "trimmed_unread", "stream_gone"]

_WORDS: dict[How, str] = {
    "trimmed_pending": "Redis trimmed them after they were read and before they were stored",
    "trimmed_unread": "Redis trimmed them before they were read",
    "stream_gone": "the stream was deleted, Redis was flushed or lost its last writes",
}
_LATELY = 3600.0


class Loss(NamedTuple):
    """Entries between two ids that nobody has; all of them lie above `after`, below `before`."""

    how: How
    entries: int
    after: StreamId
    before: StreamId


class EntryLosses:
    """`unrecorded` are those that clients who come back later cannot be told of yet."""

    def __init__(self, metrics: Metrics) -> None:
        self._count = {how: metrics.entries_lost.labels(how=how) for how in _WORDS}
        self._latest: tuple[float, str] | None = None
        self.unrecorded: list[Loss] = []

    def report(self, loss: Loss, *, at_least: bool = False) -> None:
        """`at_least` says that there may have been more."""
        how, entries, after, before = loss
        self._count[how].inc(entries)
        logger.error(
            "entries_lost",
            how=how,
            count=entries,
            at_least=at_least,
            after=str(after),
            before=str(before),
        )
        amount = f"at least {entries}" if at_least else str(entries)
        self._latest = time.monotonic(), f"{amount} entries were lost: {_WORDS[how]}"
        self.unrecorded.append(loss)

    def lately(self) -> tuple[float, str] | None:
        """The latest loss: how many seconds ago, and what was lost; None if there was none lately."""
        if self._latest is None:
            return None
        moment, words = self._latest
        ago = time.monotonic() - moment
        return (ago, words) if ago < _LATELY else None
