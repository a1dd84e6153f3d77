"""The envelope of a stream entry: six string fields."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

STREAM: Final = "shield:events"
MAXLEN: Final = 10_000
"""The orchestrator's approximate stream length: `MAXLEN ~`."""


@dataclass(frozen=True, slots=True)
class ShieldEvent:
    """An event before its fields are serialised to strings."""

    type: str
    at: datetime
    """When it happened, in UTC, and when it is published: these times set the pace of a job."""
    event_id: str
    job_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    with_offset: bool = False
    """Whether the timestamp has a UTC offset. Most producers omit it."""

    def fields(self) -> dict[bytes, bytes]:
        """Return the fields for XADD."""
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
    """An entry that no consumer can parse; `flaw` names the defect."""

    flaw: str
    at: datetime
    raw: Mapping[bytes, bytes]

    def fields(self) -> dict[bytes, bytes]:
        """Return the fields for XADD."""
        return dict(self.raw)


Entry = ShieldEvent | Malformed
