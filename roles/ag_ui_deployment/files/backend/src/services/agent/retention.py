"""Deletes conversations and runs of the agent after the retention period; measures the rest."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.repositories import kept_conversations as kept
from src.repositories import token_usage
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)

# Delay after the start of a process, when other work has priority.
_INITIAL_DELAY_SECONDS = 60.0
_INTERVAL_SECONDS = 300.0
# Limits per transaction: a conversation may have many megabytes.
_THREADS_PER_BATCH = 20
_RUNS_PER_BATCH = 200

Step = Callable[[AsyncSession], Awaitable[int]]


class AgentRetention(BackgroundTask):
    """Runs on every instance; one at a time deletes, and all report metrics."""

    def __init__(
        self, database: Database, audit: AuditLogger, metrics: Metrics, settings: Settings
    ) -> None:
        super().__init__("agent-retention")
        self._database = database
        self._audit = audit
        self._metrics = metrics
        self._max_age = timedelta(days=settings.AGENT_RETENTION_DAYS)

    async def retain(self) -> None:
        """Deletes what is older than the retention period, unless another instance is doing it."""
        async with self._database.alone(kept.RETAIN_LOCK) as has_lock:
            if has_lock:
                await self._retain()

    async def measure(self) -> None:
        """Updates the metrics of stored conversations and runs."""
        async with self._database.transaction() as session:
            stored = await kept.of_all(session)
        self._metrics.agent_kept_threads.set(stored.threads)
        self._metrics.agent_kept_runs.set(stored.runs)
        self._metrics.agent_kept_bytes.set(stored.bytes)

    async def _run(self) -> None:
        self.status = "waiting"
        pause = _INITIAL_DELAY_SECONDS
        while await self._pause(pause):
            pause = _INTERVAL_SECONDS
            try:
                await self.retain()
                await self.measure()
            except DATABASE_ERRORS as error:
                logger.warning("agent_retention_put_off", error=str(error))
            except Exception:
                logger.exception("agent_retention_failed")

    async def _retain(self) -> None:
        threads = await self._repeat(
            lambda session: kept.delete_threads(session, self._max_age, _THREADS_PER_BATCH)
        )
        runs = await self._repeat(
            lambda session: kept.delete_runs(session, self._max_age, _RUNS_PER_BATCH)
        )
        await self._repeat(lambda session: kept.count_some(session, _THREADS_PER_BATCH))
        async with self._database.transaction() as session:
            await token_usage.delete_before(session, (datetime.now(UTC) - self._max_age).date())
        if threads or runs:
            details = {"threads": threads, "runs": runs, "days": self._max_age.days}
            event = AuditEvent(
                Action.AGENT_RETAIN, actor="retention", target="agent", details=details
            )
            await self._audit.record(event)

    async def _repeat(self, step: Step) -> int:
        """Repeats a step in small transactions until it finds nothing; returns the total."""
        total = 0
        while not self._stop.is_set():
            async with self._database.transaction() as session:
                count = await step(session)
            if not count:
                break
            total += count
        return total
