"""Gaps: events that a client should have got and nobody has any more. They are never silent."""

from typing import Literal, NamedTuple

from src.models.event import StreamId
from src.services.agui.events import Event, Stamp, custom
from src.services.event_service import VENDOR

# unknown: the stream never was as far as the client; Redis was flushed, or it is another stream.
# expired: the client's place is older than all that is kept.
# trimmed: Redis let go of events before they were read or stored.
GapReason = Literal["unknown", "expired", "trimmed"]

_WORDS: dict[GapReason, str] = {
    "unknown": "the stream has begun anew; the current state follows",
    "expired": "what followed is older than all that is kept; the current state follows",
    "trimmed": "events were lost before they could be stored",
}


class Gap(NamedTuple):
    """Events above `after` are missing, none of them at or above `before` where that is known."""

    reason: GapReason
    after: StreamId
    before: StreamId | None = None

    def concerns(self, cursor: StreamId) -> bool:
        """Whether a client that has come as far as the cursor misses something of it."""
        return self.before is not None and cursor < self.before

    def notice(self, job_id: str | None = None) -> Event:
        """What a client is told; in the stream of one job it belongs to its run."""
        value = {
            "after": str(self.after),
            "reason": self.reason,
            "message": _WORDS[self.reason],
        }
        if self.before is not None:
            value["before"] = str(self.before)
        stamp: Stamp = {"metadata": {"job_id": job_id}} if job_id else {}
        return custom(f"{VENDOR}.gap", value, stamp)
