"""Follows runs of other processes for the clients of this process.

One reader serves all of them. A reader ends a run whose process has died.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
from redis.asyncio import Redis

from src.services.runs.errors import LOST
from src.services.runs.log import LogRecord, RunLog
from src.services.runs.registry import RunKey, RunRegistry, read_logs
from src.services.runs.store import RunStore
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, is_outage
from src.utils.redis import REDIS_ERRORS, Backoff

logger = structlog.get_logger(__name__)

# Block time of a read, in milliseconds. A newly followed run waits until the current read ends.
_BLOCK_MS = 50
_LEASE_CHECK_SECONDS = 1.0
# A live process renews a lease that expired during an outage of Redis within this time, in seconds.
_LEASE_GRACE_SECONDS = 3.0


@dataclass(slots=True)
class _FollowedRun:
    key: RunKey
    log: RunLog
    readers: int = 0
    # Since when the lease has been missing, by the monotonic clock.
    lease_missing_since: float | None = field(default=None)


class RunFollower(BackgroundTask):
    """The runs of other processes that clients of this process read."""

    def __init__(self, redis: Redis, registry: RunRegistry, store: RunStore) -> None:
        super().__init__("run-tail")
        self._redis = redis
        self._registry = registry
        self._store = store
        self._followed: dict[RunKey, _FollowedRun] = {}
        self._has_runs = asyncio.Event()
        self._leases_checked_at = 0.0
        self._ending: dict[RunKey, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def follow(self, key: RunKey) -> AsyncIterator[RunLog]:
        """Yields the log of a run, which is empty at first and grows while the context is open."""
        followed = self._followed.setdefault(key, _FollowedRun(key, RunLog()))
        followed.readers += 1
        self._has_runs.set()
        try:
            yield followed.log
        finally:
            followed.readers -= 1
            if not followed.readers:
                del self._followed[key]

    def end_if_orphaned(self, key: RunKey) -> None:
        """Ends a run that is stored as running, if no process works on it."""
        if key not in self._ending:
            task = asyncio.create_task(self._persist_end(key), name="agent-run-suspected")
            self._ending[key] = task
            task.add_done_callback(lambda _: self._ending.pop(key, None))

    def wake(self) -> None:
        """Wakes all readers, so that they check whether to continue."""
        for run in self._followed.values():
            run.log.wake()

    async def stop(self) -> None:
        self._stop.set()
        self._has_runs.set()
        for task in list(self._ending.values()):
            task.cancel()
        await asyncio.gather(*self._ending.values(), return_exceptions=True)
        await super().stop()

    async def _persist_end(self, key: RunKey) -> None:
        async with self.follow(key) as log:
            while not log.ended:
                await log.changed.wait()
        try:
            await self._store.persist(key, log.records)
        except Exception as error:
            # The sweeper retries: the run is still stored as running.
            if is_outage(error):
                logger.warning("agent_run_not_stored", run_id=key.run_id, error=str(error))
            else:
                logger.exception("agent_run_not_stored", run_id=key.run_id)

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            if not self._followed:
                self.status = "idle"
                self._has_runs.clear()
                await self._has_runs.wait()
                continue
            try:
                await self._read()
                await self._check_leases()
                self.status = "following"
                backoff.reset()
            except REDIS_ERRORS as error:
                self._reset_missing_leases()
                if self.waits_for("Redis", error):
                    logger.warning("run_tail_interrupted", error=str(error))
                await backoff.wait(self._stop)

    async def _read(self) -> None:
        running = {
            self._registry.log_key(run.key): run.log
            for run in self._followed.values()
            if not run.log.ended
        }
        if not running:
            await asyncio.sleep(_BLOCK_MS / 1000)
            return
        record_counts = {name: len(log.records) for name, log in running.items()}
        for name, records in (await read_logs(self._redis, record_counts, _BLOCK_MS)).items():
            running[name].append(records)

    def _reset_missing_leases(self) -> None:
        """Resets the missing leases, since no lease can be renewed during an outage of Redis."""
        for run in self._followed.values():
            run.lease_missing_since = None

    async def _check_leases(self) -> None:
        if time.monotonic() < self._leases_checked_at + _LEASE_CHECK_SECONDS:
            return
        self._leases_checked_at = checked_at = time.monotonic()
        running = [run for run in self._followed.values() if not run.log.ended]
        alive = await self._registry.alive([run.key for run in running]) if running else {}
        for run in running:
            if alive[run.key]:
                run.lease_missing_since = None
            elif run.lease_missing_since is None:
                run.lease_missing_since = checked_at
            elif checked_at - run.lease_missing_since >= _LEASE_GRACE_SECONDS:
                await self._end_orphaned(run)

    async def _end_orphaned(self, run: _FollowedRun) -> None:
        """Ends a run without a process: as it is stored, else as lost."""
        try:
            stored = await self._store.stored(run.key)
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                # Retried with the next check.
                logger.exception("agent_run_not_found", run_id=run.key.run_id)
                return
            stored = None
        if stored is not None:
            run.log.append(stored[len(run.log.records) :])
            return
        terminal = LogRecord.of(LOST.event())
        if await self._registry.close(run.key, len(run.log.records), [terminal]):
            logger.warning("agent_run_lost", run_id=run.key.run_id)
            run.log.append([terminal])
            self.end_if_orphaned(run.key)
