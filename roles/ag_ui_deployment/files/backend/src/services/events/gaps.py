"""Describes gaps: events that a client should have got and that are lost. All are reported."""

from typing import Literal, NamedTuple

from src.models.event import StreamId
from src.services.agui.events import Event, Stamp, custom
from src.services.event_service import VENDOR

# unknown: the stream never reached the cursor; Redis was flushed, or it is another stream.
# expired: the cursor is older than everything that is kept.
# trimmed: Redis trimmed events before they were read or stored.
GapReason = Literal["unknown", "expired", "trimmed"]

_MESSAGES: dict[GapReason, str] = {
    "unknown": "the stream has begun anew; the current state follows",
    "expired": "what followed is older than all that is kept; the current state follows",
    "trimmed": "events were lost before they could be stored",
}


class Gap(NamedTuple):
    """Events after `after` are missing; if `before` is known, all of them are before it."""

    reason: GapReason
    after: StreamId
    before: StreamId | None = None

    def affects(self, cursor: StreamId) -> bool:
        """Whether a client that resumes from the cursor misses any of these events."""
        return self.before is not None and cursor < self.before

    def notice(self, job_id: str | None = None) -> Event:
        """Builds the notice for clients; in the stream of one job it belongs to the run."""
        value = {
            "after": str(self.after),
            "reason": self.reason,
            "message": _MESSAGES[self.reason],
        }
        if self.before is not None:
            value["before"] = str(self.before)
        stamp: Stamp = {"metadata": {"job_id": job_id}} if job_id else {}
        return custom(f"{VENDOR}.gap", value, stamp)
