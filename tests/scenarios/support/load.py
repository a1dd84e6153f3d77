"""A load generator: publishes jobs at a constant event rate and records all events."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final, Self, cast

from redis import Redis
from redis.exceptions import ResponseError

from tests.scenarios.support.jobs import Job
from tests.shield import MAXLEN, STREAM, Publisher, ShieldEvent, Stopped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.scenarios.support.site import Site

EVENTS_PER_JOB: Final = 250
"""Events per job; then a new job starts."""
RECENT_EVENTS: Final = 20_000
"""The size of an instance's ring buffer (RING_MAX_EVENTS)."""
BURST: Final = 0.5
"""Seconds of work to catch up after a delay; after an outage Shield does not catch up."""
PAUSED_WITHIN: Final = 10.0
WRITE_REFUSALS: Final = ("NOREPLICAS", "MISCONF")
"""Errors of a Redis that refuses writes."""


@dataclass(frozen=True, slots=True)
class Published:
    """An event that Redis has accepted, with its stream id."""

    event_id: str
    job_id: str
    owner: str | None
    stream_id: str


def warm_up(site: Site, owners: Sequence[str | None]) -> None:
    """Fill the ring buffers of the instances with events like those of a load.

    Their memory then has its full size, so that only a leak makes it grow.
    """
    with Load(
        site.redis_url,
        owners,
        per_second=inf,
        maxlen=2 * RECENT_EVENTS,
        redis=site.producer_redis(),
    ) as load:
        eventually(lambda: len(load.log) > RECENT_EVENTS, "events to keep", within=60)
    site.wait_until_caught_up()


class Load:
    """Publishes jobs of these owners in its own thread for the duration of the block.

    The first job lasts as long as the load; the others end and are replaced by new ones. At the end
    of the block all jobs are completed. Publishing retries during an outage of Redis.
    """

    def __init__(
        self,
        redis_url: str,
        owners: Sequence[str | None],
        *,
        per_second: float,
        maxlen: int = MAXLEN,
        redis: Redis | None = None,
    ) -> None:
        self.log: list[Published] = []
        self.retried: set[str] = set()
        """Event ids whose XADD was retried because the response did not arrive."""
        self._redis_url = redis_url
        self._owners = owners
        self.per_second = per_second
        self._running = threading.Event()
        self._running.set()
        self._paused = threading.Event()
        self._stop = threading.Event()
        self._cancelled = threading.Event()
        self._current = ""
        self._error: BaseException | None = None
        self._publisher = Publisher(
            redis_url,
            maxlen=maxlen,
            stop=self._cancelled,
            notice=lambda _: self.retried.add(self._current),
            redis=redis,
        )
        self._jobs = [Job(owner) for owner in owners]
        self._thread = threading.Thread(target=self._run, name="load")

    @property
    def longest(self) -> Job:
        """The job that lasts as long as the load."""
        return self._jobs[0]

    def __enter__(self) -> Self:
        for job, owner in zip(self._jobs, self._owners, strict=True):
            self._publish(job, owner, job.started())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._cancelled.set()
        self.finish()
        self._publisher.close()

    def publish_together(self, events: Sequence[ShieldEvent]) -> None:
        """Write events without an owner in one transaction, so that one reader gets them all."""
        with Redis.from_url(self._redis_url, protocol=2) as redis:
            pipeline = redis.pipeline(transaction=True)
            for event in events:
                pipeline.xadd(STREAM, cast("dict[Any, Any]", event.fields()))
            self._record(events, [cast("bytes", it).decode() for it in pipeline.execute()])

    def publish_all(self, events: Sequence[ShieldEvent]) -> None:
        """Write events without an owner as fast as possible."""
        self._record(events, self._publisher.publish_all(events))

    def _record(self, events: Sequence[ShieldEvent], written: Sequence[str]) -> None:
        self.log += [
            Published(event.event_id, event.job_id, None, stream_id)
            for event, stream_id in zip(events, written, strict=True)
        ]

    def finish(self) -> None:
        """Complete all jobs and stop publishing."""
        self._stop.set()
        self._running.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause publishing for the duration of the block."""
        self._paused.clear()
        self._running.clear()
        assert self._paused.wait(PAUSED_WITHIN), "the load does not pause"
        try:
            yield
        finally:
            self._running.set()

    def _run(self) -> None:
        due, turn = time.monotonic(), 0
        try:
            while not self._stop.is_set():
                self._step(turn % len(self._jobs))
                turn += 1
                due = max(due + 1 / self.per_second, time.monotonic() - BURST)
                self._stop.wait(max(0.0, due - time.monotonic()))
                if not self._running.is_set():
                    self._paused.set()
                    self._running.wait()
            for job, owner in zip(self._jobs, self._owners, strict=True):
                self._publish(job, owner, job.complete())
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - re-raised by finish()
            self._error = error

    def _step(self, number: int) -> None:
        job, owner = self._jobs[number], self._owners[number]
        if number and job.event_count >= EVENTS_PER_JOB:
            self._publish(job, owner, job.complete())
            job = self._jobs[number] = Job(owner)
            self._publish(job, owner, job.started())
        else:
            self._publish(job, owner, job.chunk())

    def _publish(self, job: Job, owner: str | None, event: ShieldEvent) -> None:
        self._current = event.event_id
        while True:
            try:
                written = self._publisher.publish(event)
            except ResponseError as error:
                if not str(error).startswith(WRITE_REFUSALS) or self._cancelled.wait(0.2):
                    raise
            else:
                break
        self.log.append(Published(event.event_id, job.id, owner, written))
