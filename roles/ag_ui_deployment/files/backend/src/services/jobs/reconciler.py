"""Completes running jobs without recent events with their status from the orchestrator.

Nothing of this is stored: the stream decides how a job ends. Time and number of calls are limited,
since a list must be as fast without the orchestrator as with it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from src.models.job import ENDED, Job, JobStatus
from src.services.jobs.orchestrator_client import (
    JobStatusReport,
    OrchestratorClient,
    OrchestratorUnavailableError,
)

_KEPT_SECONDS = 10.0
_KEPT_MAX = 1_000
# Maximum number of concurrent requests. Other jobs keep the state from the stream.
_ASKED_MAX = 10
# How long a submission waits for responses, in seconds.
_PATIENCE = 0.3


class JobReconciler:
    """Caches the statuses of silent jobs for a few seconds."""

    def __init__(self, orchestrator: OrchestratorClient, silent_seconds: float) -> None:
        self._orchestrator = orchestrator
        self._silent = timedelta(seconds=silent_seconds)
        self._known: OrderedDict[str, tuple[float, JobStatusReport]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def complete(self, jobs: Sequence[Job], seconds: float) -> None:
        """Updates the silent jobs in place.

        Args:
            jobs: Jobs; those that are not silent are left unchanged.
            seconds: How long to wait. Later responses are cached for the next call.
        """
        silent = [job for job in jobs if self._is_silent(job)]
        await self._ask([job.id for job in silent], seconds)
        for job in silent:
            if (standing := self._standing(job.id)) is not None:
                _apply(standing, job)

    async def gone(self, job_ids: Collection[str]) -> set[str]:
        """Returns the silent jobs that have ended or are lost, according to the orchestrator."""
        await self._ask(list(job_ids), _PATIENCE)
        found = {job_id: self._standing(job_id) for job_id in job_ids}
        return {
            job_id
            for job_id, standing in found.items()
            if standing is not None and (standing.lost or standing.status in ENDED)
        }

    def is_silent_since(self, moment: datetime) -> bool:
        """Whether a job with its last event at this time counts as silent."""
        return moment < datetime.now(UTC) - self._silent

    def _is_silent(self, job: Job) -> bool:
        return job.status not in ENDED and self.is_silent_since(job.updated_at)

    def _standing(self, job_id: str) -> JobStatusReport | None:
        known = self._known.get(job_id)
        return known[1] if known and time.monotonic() - known[0] < _KEPT_SECONDS else None

    async def _ask(self, job_ids: Sequence[str], seconds: float) -> None:
        missing = [job_id for job_id in job_ids if self._standing(job_id) is None]
        for job_id in missing:
            if job_id not in self._asking and len(self._asking) < _ASKED_MAX:
                task = asyncio.create_task(self._learn(job_id), name="silent-job")
                self._asking[job_id] = task
        tasks = [self._asking[job_id] for job_id in missing if job_id in self._asking]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _learn(self, job_id: str) -> None:
        try:
            standing = await self._orchestrator.standing(job_id)
        except OrchestratorUnavailableError:
            return
        finally:
            del self._asking[job_id]
        self._known[job_id] = time.monotonic(), standing
        self._known.move_to_end(job_id)
        while len(self._known) > _KEPT_MAX:
            self._known.popitem(last=False)


def _apply(standing: JobStatusReport, job: Job) -> None:
    if standing.lost:
        job.lost = True
        return
    if standing.status is None or standing.status is JobStatus.QUEUED:
        return
    job.status = standing.status
    percents = [one for one in (job.percent, standing.percent) if one is not None]
    job.percent = 100.0 if standing.status is JobStatus.COMPLETED else max(percents, default=None)
    if standing.status in ENDED:
        job.error = job.error or standing.error
        job.completed_at = standing.completed_at
