"""Manages the runs of this process: renews their leases, cancels and ends them."""

import asyncio
from uuid import UUID

import structlog

from src.services.runs.log import RunLog
from src.services.runs.registry import RunKey, RunRegistry
from src.services.runs.runner import LocalRun, PersistRun, RunWork
from src.utils.background_task import BackgroundTask
from src.utils.metrics import Metrics
from src.utils.redis import REDIS_ERRORS

logger = structlog.get_logger(__name__)

# Interval of lease renewals, which also return requests to cancel, in seconds.
_RENEW_SECONDS = 0.5
# Part of the grace period of the shutdown for sending and storing the ends of runs, in seconds.
_CLOSE_SECONDS = 2.0


class RunManager(BackgroundTask):
    """The runs of this process.

    Args:
        registry: The runs in Redis.
        store: Stores a run that has ended.
        metrics: The metrics of the process.
        grace_seconds: The grace period of a shutdown.
    """

    def __init__(
        self, registry: RunRegistry, store: PersistRun, metrics: Metrics, grace_seconds: float
    ) -> None:
        super().__init__("agent-runs")
        self._registry = registry
        self._store = store
        self._metrics = metrics
        self._grace_seconds = grace_seconds - min(_CLOSE_SECONDS, grace_seconds / 4)
        self._runs: dict[RunKey, LocalRun] = {}
        # When draining began, by the clock of the event loop.
        self._drained_at: float | None = None

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def draining(self) -> bool:
        return self._drained_at is not None

    def begin(self, key: RunKey, work: RunWork) -> RunLog:
        """Starts a run, whose lease must have been acquired, and returns its log."""
        run = self._runs[key] = LocalRun(key, work, self._registry, self._store)
        self._metrics.runs_on.inc()
        run.start(self._remove)
        return run.log

    def log(self, key: RunKey) -> RunLog | None:
        """Returns the log of a run of this process; None if it does not run here."""
        run = self._runs.get(key)
        return run.log if run else None

    def cancel(self, key: RunKey) -> bool:
        """Cancels a run of this process; returns False if it does not run here."""
        run = self._runs.get(key)
        if run is None:
            return False
        run.stop("cancelled")
        return True

    async def recheck_permission(self, key: RunKey) -> None:
        """Ends a run if its user has lost the permission, possibly before the run started here."""
        if run := self._runs.get(key):
            await run.recheck_permission()

    async def recheck_permissions(self, user_id: UUID) -> None:
        """Ends the runs for which a user has lost the permission."""
        for run in [run for run in self._runs.values() if run.key.owner == user_id]:
            await run.recheck_permission()

    def drain(self) -> None:
        """Starts draining. Running runs end at the end of the grace period."""
        if self._drained_at is None:
            loop = asyncio.get_running_loop()
            self._drained_at = loop.time()
            loop.call_later(self._grace_seconds, self._stop_all)

    async def stop(self) -> None:
        """Waits for all runs, also those without clients, until the grace period ends."""
        self.drain()
        await asyncio.gather(*(self._wait_closed(run) for run in list(self._runs.values())))
        await super().stop()

    async def _wait_closed(self, run: LocalRun) -> None:
        assert self._drained_at is not None  # noqa: S101 - drain() was called
        ends_at = self._drained_at + self._grace_seconds
        await run.wait_closed(ends_at + _CLOSE_SECONDS - asyncio.get_running_loop().time())

    def _remove(self, run: LocalRun) -> None:
        self._runs.pop(run.key, None)
        self._metrics.runs_on.dec()
        if run.outcome is not None:
            self._metrics.runs_ended.labels(run.outcome).inc()

    def _stop_all(self) -> None:
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
            await self._pause(_RENEW_SECONDS)

    async def _renew(self) -> None:
        active = [run.key for run in self._runs.values() if not run.log.ended]
        if not active:
            return
        for key, lease in (await self._registry.renew(active)).items():
            run = self._runs.get(key)
            if run is None:
                continue
            if not lease.is_open:
                run.stop("lost")
            elif lease.is_cancelled:
                run.stop("cancelled")
