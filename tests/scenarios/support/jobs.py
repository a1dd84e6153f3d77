"""Jobs for tests: of a given length, and recognisable in a stream."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any, Self
from uuid import uuid4

from tests.shield import Publisher, ShieldEvent


class Job:
    """A job that generates its events one by one, each valid and each different."""

    def __init__(self, owner: str | None = None) -> None:
        self.id = str(uuid4())
        self.metadata = {"workspace": "default", **({"user_id": owner} if owner else {})}
        self.event_count = 0

    def event(self, kind: str, **data: Any) -> ShieldEvent:
        """Generate the job's next event."""
        self.event_count += 1
        return ShieldEvent(
            type=kind,
            at=datetime.now(UTC),
            event_id=str(uuid4()),
            job_id=self.id,
            data={"number": self.event_count, **data},
            metadata=self.metadata,
        )

    def started(self) -> ShieldEvent:
        return self.event("job:started", status="processing")

    def chunk(self) -> ShieldEvent:
        return self.event("rag:chunk_processed", chunk_id=f"chunk-{self.event_count}", tokens=200)

    def complete(self) -> ShieldEvent:
        return self.event("job:complete", status="completed", result={"events": self.event_count})

    def all_events(self, count: int) -> list[ShieldEvent]:
        """Return the whole job from start to end as `count` events."""
        return [self.started(), *(self.chunk() for _ in range(count - 2)), self.complete()]


class SteadyPublisher:
    """Publishes a job's events at a constant rate in a thread for the duration of the block.

    `ids` are the stream ids of the events. The job is completed at the end.
    """

    def __init__(self, publisher: Publisher, job: Job, *, per_second: float) -> None:
        self._publisher = publisher
        self._job = job
        self._pause = 1 / per_second
        self._stop = threading.Event()
        self.ids: list[str] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self.ids.append(self._publisher.publish(self._job.started()))
        self._thread = threading.Thread(target=self._run, name="steady publisher")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None and self.error is not None:
            raise self.error

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                self.ids.append(self._publisher.publish(self._job.chunk()))
                due += self._pause
                self._stop.wait(max(0.0, due - time.monotonic()))
            self.ids.append(self._publisher.publish(self._job.complete()))
        except BaseException as error:  # noqa: BLE001 - re-raised in the waiting thread
            self.error = error
