"""The runs that this process is at work on: their leases, the wishes to cancel them, their end."""

import asyncio
from uuid import UUID

import structlog

from src.services.runs.log import RunLog
from src.services.runs.registry import RunKey, RunRegistry
from src.services.runs.runner import LocalRun, RunWork, Store
from src.utils.background_task import BackgroundTask
from src.utils.metrics import Metrics
from src.utils.redis import REDIS_ERRORS

logger = structlog.get_logger(__name__)

# How often leases are renewed and wishes to cancel are looked for, in seconds.
_BEAT_SECONDS = 0.5
# What is left of the grace of a shutdown for the ends of runs to be told and stored, in seconds.
_LAST_SECONDS = 2.0


class RunManager(BackgroundTask):
    def __init__(
        self, registry: RunRegistry, store: Store, metrics: Metrics, grace_seconds: float
    ) -> None:
        super().__init__("agent-runs")
        self._registry = registry
        self._store = store
        self._metrics = metrics
        self._grace = grace_seconds - min(_LAST_SECONDS, grace_seconds / 4)
        self._runs: dict[RunKey, LocalRun] = {}
        # Since when no new runs begin, by the clock of the event loop.
        self._drained_at: float | None = None

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def draining(self) -> bool:
        return self._drained_at is not None

    def begin(self, key: RunKey, loop: RunWork) -> RunLog:
        run = self._runs[key] = LocalRun(key, loop, self._registry, self._store)
        self._metrics.runs_on.inc()
        run.start(self._forget)
        return run.log

    def log(self, key: RunKey) -> RunLog | None:
        """The log of a run that goes on here, None if it does not."""
        run = self._runs.get(key)
        return run.log if run else None

    def cancel(self, key: RunKey) -> bool:
        """Whether the run is one of this process."""
        run = self._runs.get(key)
        if run is None:
            return False
        run.stop("cancelled")
        return True

    async def recheck_permission(self, key: RunKey) -> None:
        """End a run that its user may not run any more: that may have changed before it was here."""
        if run := self._runs.get(key):
            await run.recheck_permission()

    async def recheck_permissions(self, user_id: UUID) -> None:
        """Somebody's access has changed: end what they may not run any more."""
        for run in [run for run in self._runs.values() if run.key.owner == user_id]:
            await run.recheck_permission()

    def drain(self) -> None:
        """No new runs; those that are on get their grace and are then ended."""
        if self._drained_at is None:
            loop = asyncio.get_running_loop()
            self._drained_at = loop.time()
            loop.call_later(self._grace, self._end_all)

    async def stop(self) -> None:
        """What is left of the grace belongs to runs that nobody follows too."""
        self.drain()
        await asyncio.gather(*(self._settle(run) for run in list(self._runs.values())))
        await super().stop()

    async def _settle(self, run: LocalRun) -> None:
        assert self._drained_at is not None  # noqa: S101 - drain() was called
        ends_at = self._drained_at + self._grace
        await run.wait_closed(ends_at + _LAST_SECONDS - asyncio.get_running_loop().time())

    def _forget(self, run: LocalRun) -> None:
        self._runs.pop(run.key, None)
        self._metrics.runs_on.dec()
        if run.ended_as is not None:
            self._metrics.runs_ended.labels(run.ended_as).inc()

    def _end_all(self) -> None:
        for run in list(self._runs.values()):
            run.stop("shutdown")

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._renew()
                self.status = "watching"
            except REDIS_ERRORS as error:
                if self.waits_for("Redis", error):
                    logger.warning("agent_runs_wait", error=str(error))
            await self._pause(_BEAT_SECONDS)

    async def _renew(self) -> None:
        working = [run.key for run in self._runs.values() if not run.log.ended]
        if not working:
            return
        for key, lease in (await self._registry.renew(working)).items():
            run = self._runs.get(key)
            if run is None:
                continue
            if not lease.is_open:
                run.stop("lost")
            elif lease.is_cancelled:
                run.stop("cancelled")
