"""Deletes conversations and runs of the agent after the retention period; measures the rest."""

from datetime import UTC, datetime, timedelta

from src.config import Settings
from src.repositories import conversation_storage as stored
from src.repositories import token_usage
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.utils.database import Database
from src.utils.metrics import Metrics
from src.utils.retention_task import RetentionTask

# Limits per transaction: a conversation may have many megabytes.
_THREADS_PER_BATCH = 20
_RUNS_PER_BATCH = 200


class AgentRetention(RetentionTask):
    """Deletes old conversations and runs, and reports metrics of the stored ones."""

    lock_key = stored.RETENTION_LOCK
    outage_event = "agent_retention_put_off"
    failure_event = "agent_retention_failed"
    first_seconds = 60.0
    every_seconds = 300.0

    def __init__(
        self, database: Database, audit: AuditLogger, metrics: Metrics, settings: Settings
    ) -> None:
        super().__init__("agent-retention", database)
        self._audit = audit
        self._metrics = metrics
        self._max_age = timedelta(days=settings.AGENT_RETENTION_DAYS)

    async def measure(self) -> None:
        """Update the metrics of stored conversations and runs."""
        async with self._database.transaction() as session:
            totals = await stored.totals(session)
        self._metrics.agent_kept_threads.set(totals.threads)
        self._metrics.agent_kept_runs.set(totals.runs)
        self._metrics.agent_kept_bytes.set(totals.bytes)

    async def _run_once(self) -> None:
        await super()._run_once()
        await self.measure()

    async def _retain(self) -> None:
        threads = await self._in_batches(
            lambda session: stored.delete_threads(session, self._max_age, _THREADS_PER_BATCH)
        )
        runs = await self._in_batches(
            lambda session: stored.delete_runs(session, self._max_age, _RUNS_PER_BATCH)
        )
        await self._in_batches(lambda session: stored.count_some(session, _THREADS_PER_BATCH))
        async with self._database.transaction() as session:
            await token_usage.delete_before(session, (datetime.now(UTC) - self._max_age).date())
        if threads or runs:
            details = {"threads": threads, "runs": runs, "days": self._max_age.days}
            event = AuditEvent(
                Action.AGENT_RETAIN, actor="retention", target="agent", details=details
            )
            await self._audit.record(event)
