"""The envelope of an entry on the stream: six fields, all of them strings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

STREAM: Final = "shield:events"
MAXLEN: Final = 10_000
"""The orchestrator trims with `MAXLEN ~` this many entries."""


@dataclass(frozen=True, slots=True)
class ShieldEvent:
    """One event as the orchestrator means it, before it becomes strings."""

    type: str
    at: datetime
    """When it happened, in UTC. Also when it is published: the pace of a job is in these."""
    event_id: str
    job_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    with_offset: bool = False
    """Whether the timestamp says that it is UTC. Most producers leave it out."""

    def fields(self) -> dict[bytes, bytes]:
        """The entry's fields as they go into XADD."""
        at = self.at if self.with_offset else self.at.replace(tzinfo=None)
        text = {
            "event_id": self.event_id,
            "type": self.type,
            "timestamp": at.isoformat(),
            "job_id": self.job_id,
            "data": json.dumps(self.data),
            "metadata": json.dumps(self.metadata),
        }
        return {name.encode(): value.encode() for name, value in text.items()}


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry that no consumer can make sense of; `flaw` names what is wrong with it."""

    flaw: str
    at: datetime
    raw: Mapping[bytes, bytes]

    def fields(self) -> dict[bytes, bytes]:
        """The entry's fields as they go into XADD."""
        return dict(self.raw)


Entry = ShieldEvent | Malformed
