"""Counts, logs and reports to /health the entries that were lost before they were stored."""

import time
from typing import Literal, NamedTuple

import structlog

from src.models.event import StreamId
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)

LossKind = Literal["trimmed_pending", "trimmed_unread", "stream_gone"]

_DESCRIPTIONS: dict[LossKind, str] = {
    "trimmed_pending": "Redis trimmed them after they were read and before they were stored",
    "trimmed_unread": "Redis trimmed them before they were read",
    "stream_gone": "the stream was deleted, Redis was flushed or lost its last writes",
}
_RECENT_SECONDS = 3600.0


class Loss(NamedTuple):
    """Lost entries, all of them after `after` and before `before`."""

    how: LossKind
    entries: int
    after: StreamId
    before: StreamId


class EntryLosses:
    """The losses of this process; `unrecorded` are not stored in PostgreSQL yet."""

    def __init__(self, metrics: Metrics) -> None:
        self._count = {how: metrics.entries_lost.labels(how=how) for how in _DESCRIPTIONS}
        self._latest: tuple[float, str] | None = None
        self.unrecorded: list[Loss] = []

    def report(self, loss: Loss, *, at_least: bool = False) -> None:
        """Counts and logs a loss; `at_least` means that more entries may be lost."""
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
        self._latest = time.monotonic(), f"{amount} entries were lost: {_DESCRIPTIONS[how]}"
        self.unrecorded.append(loss)

    def recent(self) -> tuple[float, str] | None:
        """Returns the age in seconds and the text of the latest loss of the last hour, if any."""
        if self._latest is None:
            return None
        reported_at, description = self._latest
        age = time.monotonic() - reported_at
        return (age, description) if age < _RECENT_SECONDS else None
