"""Finds runs that are stored as running but have no process, and ends them.

Their processes have died or could not store the end in time. Every instance checks. The first one
ends and stores a run, and the others find that result.
"""

import structlog

from src.services.runs.follower import RunFollower
from src.services.runs.registry import RunRegistry
from src.services.runs.store import RunStore
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS
from src.utils.redis import REDIS_ERRORS

logger = structlog.get_logger(__name__)

_INTERVAL_SECONDS = 10.0


class RunSweeper(BackgroundTask):
    def __init__(self, store: RunStore, registry: RunRegistry, follower: RunFollower) -> None:
        super().__init__("run-sweeper")
        self._store = store
        self._registry = registry
        self._follower = follower

    async def _run(self) -> None:
        while not self._stop.is_set():
            await self._sweep()
            await self._pause(_INTERVAL_SECONDS)

    async def _sweep(self) -> None:
        try:
            keys = await self._store.running_runs()
        except DATABASE_ERRORS as error:
            self._log_outage("PostgreSQL", error)
            return
        try:
            orphaned = await self._registry.orphaned(keys) if keys else []
        except REDIS_ERRORS as error:
            self._log_outage("Redis", error)
            return
        self.status = "watching"
        for key in orphaned:
            self._follower.end_if_orphaned(key)

    def _log_outage(self, dependency: str, error: BaseException) -> None:
        if self.waits_for(dependency, error):
            logger.warning("run_sweeper_waits", dependency=dependency, error=str(error))
