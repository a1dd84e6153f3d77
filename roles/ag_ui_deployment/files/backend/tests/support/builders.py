"""Builders for Shield events and settings with defaults for everything a test does not need."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

import orjson

from src.config import Settings
from src.models import visibility
from src.models.event import ShieldEvent, StreamId
from src.models.visibility import Visibility
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.agui.sse import encode
from src.services.event_service import JobState, fold
from src.services.events.job_projector import JobProjector
from src.services.events.subscription import JobScope
from tests.run_checker import events_of, parse_frames

JOB = "7d0d6a44-2f39-4a4b-9c43-6a0f6a3a2b11"
OWNER = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
STRANGER = "6fa459ea-ee8a-4ca4-894e-db77e160355e"
FIRST_MS = 1_763_856_000_000
JWT_SECRET = "a-secret-of-the-tests-that-is-long-enough"

# Scopes of an administrator, of the owner of jobs, of the owner as a workspace member, and of
# another user who administers that workspace.
RED = "red"
EVERYTHING = JobScope(visibility.EVERYTHING)
MINE = JobScope(Visibility(UUID(OWNER), frozenset({DEFAULT_WORKSPACE})))
MINE_IN_RED = JobScope(Visibility(UUID(OWNER), frozenset({DEFAULT_WORKSPACE, RED})))
ALL_OF_RED = JobScope(
    Visibility(UUID(STRANGER), frozenset({DEFAULT_WORKSPACE, RED}), frozenset({RED}))
)
SCOPES = (EVERYTHING, MINE, MINE_IN_RED, ALL_OF_RED)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ids = count(1)


def job_scope(job: str = JOB) -> JobScope:
    """The scope of one job, for an administrator."""
    return JobScope(visibility.EVERYTHING, job)


def stream_id(number: int) -> StreamId:
    """Return the n-th id of a stream; there are two in each millisecond."""
    return StreamId(FIRST_MS + number // 2, number % 2)


def text_too_large_for_an_index() -> str:
    """Return a text that PostgreSQL can store but not index: long and incompressible."""
    return "".join(chr(0x4E00 + byte) for byte in Random(7).randbytes(5000))


def shield_event(  # noqa: PLR0913 - optional keyword arguments
    kind: str = "job:progress",
    data: Mapping[str, Any] | None = None,
    *,
    number: int | None = None,
    job: str | None = JOB,
    event_id: str | None = None,
    user: str | None = None,
    workspace: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    timestamp: int | None = None,
) -> ShieldEvent:
    """Build an event.

    Args:
        kind: The event type.
        data: The event's data.
        number: The index of its stream id, and its event id unless `event_id` is given; the next
            unused number by default.
        job: The job id; None for an event outside all jobs.
        event_id: The event id.
        user: The id of the job's owner, for the metadata.
        workspace: The workspace, for the metadata.
        metadata: Further metadata.
        timestamp: Milliseconds since 1970; the time of the stream id by default.
    """
    entry_id = stream_id(next(_ids) if number is None else number)
    about: dict[str, Any] = dict(metadata or {})
    if user is not None:
        about["user_id"] = user
    if workspace is not None:
        about["workspace"] = workspace
    return ShieldEvent(
        id=entry_id,
        event_id=event_id or f"event-{entry_id}",
        type=kind,
        timestamp=entry_id.ms if timestamp is None else timestamp,
        job_id=job,
        data=data or {},
        metadata=about,
    )


def stream(*events: ShieldEvent) -> list[ShieldEvent]:
    """Return the events with new stream ids in the given order; everything else is kept."""
    return [
        ShieldEvent(
            id=stream_id(number),
            event_id=event.event_id,
            type=event.type,
            timestamp=event.timestamp,
            job_id=event.job_id,
            data=event.data,
            metadata=event.metadata,
        )
        for number, event in enumerate(events, start=1)
    ]


def fields_of(event: ShieldEvent) -> dict[bytes, bytes]:
    """Return the stream entry that parses to this event."""
    fields = {
        b"event_id": event.event_id.encode(),
        b"type": event.type.encode(),
        b"timestamp": _iso(event.timestamp).encode(),
        b"data": orjson.dumps(event.data),
        b"metadata": orjson.dumps(event.metadata),
    }
    if event.job_id is not None:
        fields[b"job_id"] = event.job_id.encode()
    return fields


def _iso(milliseconds: int) -> str:
    return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")


def folded(
    events: Iterable[ShieldEvent], state: JobState | None = None
) -> Iterator[tuple[ShieldEvent, JobState | None, list[dict[str, Any]]]]:
    """Yield each event with the state after it and its serialised AG-UI events."""
    for event in events:
        result = fold(state, event)
        state = result.state
        frames = parse_frames(encode(result.events, event.id))
        yield event, state, events_of(frames)


def wire(events: Iterable[ShieldEvent]) -> list[dict[str, Any]]:
    """Return all serialised AG-UI events of a job's events."""
    return [one for _, _, output in folded(events) for one in output]


def wire_of(body: bytes) -> list[dict[str, Any]]:
    """Parse the AG-UI events of a part of a stream."""
    return events_of(parse_frames(body))


async def _no_past(_jobs: object, _before: object) -> AsyncIterator[list[ShieldEvent]]:
    yield []


def new_projector() -> JobProjector:
    """A projector for a stream without history."""
    return JobProjector(_no_past)


def settings_of(**values: Any) -> Settings:
    """Settings with defaults for the required values, without reading a file."""
    required = {
        "DATABASE_URL": "postgresql://shield:pw@127.0.0.1:1/shield",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "JWT_SECRET": JWT_SECRET,
    }
    return Settings(_env_file=None, **(required | values))
