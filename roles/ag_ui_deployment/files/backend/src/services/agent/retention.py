"""Deletes conversations and runs of the agent after the retention period; measures the rest."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.repositories import conversation_storage as kept
from src.repositories import token_usage
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)

# Delay after the start of a process, when other work has priority.
_FIRST_SECONDS = 60.0
_EVERY_SECONDS = 300.0
# Limits per transaction: a conversation may have many megabytes.
_THREADS = 20
_RUNS = 200

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
        self._age = timedelta(days=settings.AGENT_RETENTION_DAYS)

    async def retain(self) -> None:
        """Deletes what is older than the retention period, unless another instance is doing it."""
        async with self._database.alone(kept.RETENTION_LOCK) as is_ours:
            if is_ours:
                await self._retain()

    async def measure(self) -> None:
        """Updates the metrics of stored conversations and runs."""
        async with self._database.transaction() as session:
            held = await kept.of_all(session)
        self._metrics.agent_kept_threads.set(held.threads)
        self._metrics.agent_kept_runs.set(held.runs)
        self._metrics.agent_kept_bytes.set(held.bytes)

    async def _run(self) -> None:
        self.status = "waiting"
        pause = _FIRST_SECONDS
        while await self._pause(pause):
            pause = _EVERY_SECONDS
            try:
                await self.retain()
                await self.measure()
            except DATABASE_ERRORS as error:
                logger.warning("agent_retention_put_off", error=str(error))
            except Exception:
                logger.exception("agent_retention_failed")

    async def _retain(self) -> None:
        threads = await self._repeated(lambda it: kept.delete_threads(it, self._age, _THREADS))
        runs = await self._repeated(lambda it: kept.delete_runs(it, self._age, _RUNS))
        await self._repeated(lambda it: kept.count_some(it, _THREADS))
        async with self._database.transaction() as session:
            await token_usage.delete_before(session, (datetime.now(UTC) - self._age).date())
        if threads or runs:
            details = {"threads": threads, "runs": runs, "days": self._age.days}
            event = AuditEvent(
                Action.AGENT_RETAIN, actor="retention", target="agent", details=details
            )
            await self._audit.record(event)

    async def _repeated(self, step: Step) -> int:
        """Repeats a step in small transactions until it finds nothing; returns the total."""
        done = 0
        while not self._stop.is_set():
            async with self._database.transaction() as session:
                some = await step(session)
            if not some:
                break
            done += some
        return done
