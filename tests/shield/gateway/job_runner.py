"""The jobs of the orchestrator: each publishes its events to the stream and tracks its state."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from tests.shield.gateway.marks import marks_in
from tests.shield.jobs import Outcome, crawl_job, ingest_job
from tests.shield.publisher import Publisher, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.shield.envelope import ShieldEvent

GENERATORS: Final[Mapping[str, Callable[..., list[ShieldEvent]]]] = {
    "crawl": crawl_job,
    "ingest": ingest_job,
}
STATUSES: Final = ("queued", "processing", "completed", "failed")
_STATUS_AFTER: Final = {
    "job:started": "processing",
    "ingestion.started": "processing",
    "job:complete": "completed",
    "ingestion.completed": "completed",
    "job:failed": "failed",
    "ingestion.failed": "failed",
    "job:cancelled": "failed",
}


def _now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(slots=True)
class Job:
    """A job as `GET /jobs/{id}` returns it, with its marks."""

    job_type: str
    events: list[ShieldEvent]
    marks: Mapping[str, str]
    status: str = "queued"
    chunks_total: int = 0
    chunks_processed: int = 0
    created_at: str = field(default_factory=_now)
    started_at: str | None = None
    completed_at: str | None = None
    error_message: str | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def job_id(self) -> str:
        return self.events[0].job_id

    def as_json(self) -> dict[str, Any]:
        """Return the response of `GET /jobs/{id}`."""
        percent = 100 * self.chunks_processed / self.chunks_total if self.chunks_total else 0
        return {
            "job_id": self.job_id,
            "job_type": self.job_type,
            "status": self.status,
            "chunks_total": self.chunks_total,
            "chunks_processed": self.chunks_processed,
            "percent_complete": round(100.0 if self.status == "completed" else percent, 1),
            "created_at": self.created_at,
            "started_at": self.started_at,
            "completed_at": self.completed_at,
            "error_message": self.error_message,
        }

    def apply(self, event: ShieldEvent) -> None:
        """Update the state from an event."""
        self.chunks_total = event.data.get("chunks_total", self.chunks_total)
        self.chunks_processed = event.data.get("chunks_processed", self.chunks_processed)
        status = _STATUS_AFTER.get(event.type, self.status)
        if status == self.status:
            return
        self.status = status
        if status == "processing":
            self.started_at = _now()
        else:
            self.completed_at = _now()
        if status == "failed":
            self.error_message = event.data.get("error") or event.data.get("reason")


def _events(kind: str, arguments: Mapping[str, Any], marks: Mapping[str, str]) -> list[ShieldEvent]:
    outcome = marks.get("outcome", "complete")
    ending = outcome if outcome in {"failed", "cancelled"} else "complete"
    return GENERATORS[kind](
        Random(),
        user_id=marks.get("owner"),
        outcome=cast("Outcome", ending),
        call=arguments,
    )


def _cancellation(job: Job, following: ShieldEvent) -> ShieldEvent:
    """Return the event of a cancelled job in place of the one that would have followed."""
    data = {"job_type": job.job_type, "status": "cancelled", "reason": "cancelled by the user"}
    return replace(
        following, type="job:cancelled", at=datetime.now(UTC), event_id=str(uuid4()), data=data
    )


def _at_speed(events: list[ShieldEvent], speed: float) -> list[ShieldEvent]:
    started_at = events[0].at
    return [replace(event, at=started_at + (event.at - started_at) / speed) for event in events]


class JobRunner:
    """Accepts jobs and runs them concurrently."""

    def __init__(self, redis_url: str, stream: str, speed: float) -> None:
        self._redis_url = redis_url
        self._stream = stream
        self._speed = speed
        self._stop = threading.Event()
        self._running: set[asyncio.Task[None]] = set()
        self.jobs: dict[str, Job] = {}

    def accept(self, kind: str, arguments: Mapping[str, Any]) -> Job:
        """Start a job. Its first events may be on the stream before the caller knows its id."""
        marks = marks_in(arguments)
        events = _at_speed(_events(kind, arguments, marks), float(marks.get("speed", self._speed)))
        job = Job(kind, events, marks)
        self.jobs[job.job_id] = job
        task = asyncio.create_task(self._run(job))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return job

    async def _run(self, job: Job) -> None:
        publisher = Publisher(
            self._redis_url, stream=job.marks.get("stream", self._stream), stop=self._stop
        )
        started_at = time.monotonic()
        outcome = job.marks.get("outcome")
        try:
            for event in job.events:
                due = started_at + (event.at - job.events[0].at) / timedelta(seconds=1)
                with suppress(TimeoutError):
                    await asyncio.wait_for(job.cancelled.wait(), max(0.0, due - time.monotonic()))
                if job.cancelled.is_set():
                    ending = _cancellation(job, event)
                    await asyncio.to_thread(publisher.publish, ending)
                    job.apply(ending)
                    break
                if outcome != "silent":
                    await asyncio.to_thread(publisher.publish, event)
                job.apply(event)
                if job.chunks_processed and outcome in {"stuck", "vanished"}:
                    break
        except Stopped:
            return
        finally:
            publisher.close()
        if outcome == "vanished":
            del self.jobs[job.job_id]

    async def wait_until_idle(self) -> None:
        """Wait until no job has anything left to publish."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def stop(self) -> None:
        self._stop.set()
        for task in list(self._running):
            task.cancel()
        await self.wait_until_idle()
