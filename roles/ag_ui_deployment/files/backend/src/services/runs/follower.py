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
_LOOK_SECONDS = 1.0
# A live process renews a lease that expired during an outage of Redis within this time, in seconds.
_PATIENCE_SECONDS = 3.0


@dataclass(slots=True)
class _Followed:
    key: RunKey
    log: RunLog
    readers: int = 0
    # Since when the lease has been missing, by the monotonic clock.
    silent_since: float | None = field(default=None)


class RunFollower(BackgroundTask):
    """The runs of other processes that clients of this process read."""

    def __init__(self, redis: Redis, registry: RunRegistry, store: RunStore) -> None:
        super().__init__("run-tail")
        self._redis = redis
        self._registry = registry
        self._store = store
        self._followed: dict[RunKey, _Followed] = {}
        self._wanted = asyncio.Event()
        self._looked_at = 0.0
        self._suspected: dict[RunKey, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def follow(self, key: RunKey) -> AsyncIterator[RunLog]:
        """Yields the log of a run, which is empty at first and grows while the context is open."""
        followed = self._followed.setdefault(key, _Followed(key, RunLog()))
        followed.readers += 1
        self._wanted.set()
        try:
            yield followed.log
        finally:
            followed.readers -= 1
            if not followed.readers:
                del self._followed[key]

    def suspect(self, key: RunKey) -> None:
        """Ends a run that is stored as running, if no process works on it."""
        if key not in self._suspected:
            task = asyncio.create_task(self._settle(key), name="agent-run-suspected")
            self._suspected[key] = task
            task.add_done_callback(lambda _: self._suspected.pop(key, None))

    def wake(self) -> None:
        """Wakes all readers, so that they check whether to continue."""
        for one in self._followed.values():
            one.log.wake()

    async def stop(self) -> None:
        self._stop.set()
        self._wanted.set()
        for task in list(self._suspected.values()):
            task.cancel()
        await asyncio.gather(*self._suspected.values(), return_exceptions=True)
        await super().stop()

    async def _settle(self, key: RunKey) -> None:
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
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                await self._read()
                await self._look_after()
                self.status = "following"
                backoff.reset()
            except REDIS_ERRORS as error:
                self._believe()
                if self.waits_for("Redis", error):
                    logger.warning("run_tail_interrupted", error=str(error))
                await backoff.wait(self._stop)

    async def _read(self) -> None:
        going = {
            self._registry.log_of(one.key): one.log
            for one in self._followed.values()
            if not one.log.ended
        }
        if not going:
            await asyncio.sleep(_BLOCK_MS / 1000)
            return
        places = {name: len(log.records) for name, log in going.items()}
        for name, records in (await read_logs(self._redis, places, _BLOCK_MS)).items():
            going[name].append(records)

    def _believe(self) -> None:
        """Resets the missing leases, since no lease can be renewed during an outage of Redis."""
        for one in self._followed.values():
            one.silent_since = None

    async def _look_after(self) -> None:
        if time.monotonic() < self._looked_at + _LOOK_SECONDS:
            return
        self._looked_at = moment = time.monotonic()
        going = [one for one in self._followed.values() if not one.log.ended]
        alive = await self._registry.alive([one.key for one in going]) if going else {}
        for one in going:
            if alive[one.key]:
                one.silent_since = None
            elif one.silent_since is None:
                one.silent_since = moment
            elif moment - one.silent_since >= _PATIENCE_SECONDS:
                await self._end(one)

    async def _end(self, one: _Followed) -> None:
        """Ends a run without a process: as it is stored, else as lost."""
        try:
            stored = await self._store.stored(one.key)
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                # Retried with the next check.
                logger.exception("agent_run_not_found", run_id=one.key.run_id)
                return
            stored = None
        if stored is not None:
            one.log.append(stored[len(one.log.records) :])
            return
        ending = LogRecord.of(LOST.event())
        if await self._registry.close(one.key, len(one.log.records), [ending]):
            logger.warning("agent_run_lost", run_id=one.key.run_id)
            one.log.append([ending])
            self.suspect(one.key)
