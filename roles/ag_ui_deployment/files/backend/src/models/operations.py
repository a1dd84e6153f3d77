"""The state of all instances in the API of administrators."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from src.models.stream import StreamReport

HealthStatus = Literal["healthy", "degraded", "unhealthy"]


class InstanceStatus(BaseModel):
    """What an instance has reported about itself.

    `problems` has what /health says of each check that is not ok. `not_ready` is why the instance
    should get no traffic, null if it should.
    """

    name: str
    version: str
    started_at: datetime
    reported_at: datetime
    status: HealthStatus
    problems: dict[str, str]
    not_ready: str | None
    open_streams: int
    agent_runs: int
    resident_bytes: int


class StreamGap(BaseModel):
    """Entries between two ids that were lost before they were stored."""

    after: str
    before: str
    reason: str
    entries: int
    noticed_at: datetime


class OperationsReport(BaseModel):
    """The instances by name, the stream, and its latest gaps, the newest first."""

    instances: list[InstanceStatus]
    stream: StreamReport
    gaps: list[StreamGap]
