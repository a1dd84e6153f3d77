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

_CACHE_SECONDS = 10.0
_CACHE_SIZE = 1_000
# Maximum number of concurrent requests. Other jobs keep the state from the stream.
_MAX_REQUESTS = 10
# How long a submission waits for responses, in seconds.
_TIMEOUT_SECONDS = 0.3


class JobReconciler:
    """Caches the statuses of silent jobs for a few seconds."""

    def __init__(self, orchestrator: OrchestratorClient, silent_seconds: float) -> None:
        self._orchestrator = orchestrator
        self._silent = timedelta(seconds=silent_seconds)
        self._cache: OrderedDict[str, tuple[float, JobStatusReport]] = OrderedDict()
        self._requests: dict[str, asyncio.Task[None]] = {}

    async def complete(self, jobs: Sequence[Job], wait_seconds: float) -> None:
        """Updates the silent jobs in place.

        Args:
            jobs: Jobs; those that are not silent are left unchanged.
            wait_seconds: How long to wait. Later responses are cached for the next call.
        """
        silent = [job for job in jobs if self._is_silent(job)]
        await self._request([job.id for job in silent], wait_seconds)
        for job in silent:
            if (report := self._cached_report(job.id)) is not None:
                _apply(report, job)

    async def ended_jobs(self, job_ids: Collection[str]) -> set[str]:
        """Returns the silent jobs that have ended or are lost, according to the orchestrator."""
        await self._request(list(job_ids), _TIMEOUT_SECONDS)
        reports = {job_id: self._cached_report(job_id) for job_id in job_ids}
        return {
            job_id
            for job_id, report in reports.items()
            if report is not None and (report.lost or report.status in ENDED)
        }

    def is_silent_since(self, timestamp: datetime) -> bool:
        """Whether a job with its last event at this time counts as silent."""
        return timestamp < datetime.now(UTC) - self._silent

    def _is_silent(self, job: Job) -> bool:
        return job.status not in ENDED and self.is_silent_since(job.updated_at)

    def _cached_report(self, job_id: str) -> JobStatusReport | None:
        cached = self._cache.get(job_id)
        return cached[1] if cached and time.monotonic() - cached[0] < _CACHE_SECONDS else None

    async def _request(self, job_ids: Sequence[str], wait_seconds: float) -> None:
        missing = [job_id for job_id in job_ids if self._cached_report(job_id) is None]
        for job_id in missing:
            if job_id not in self._requests and len(self._requests) < _MAX_REQUESTS:
                task = asyncio.create_task(self._fetch(job_id), name="silent-job")
                self._requests[job_id] = task
        tasks = [self._requests[job_id] for job_id in missing if job_id in self._requests]
        if tasks:
            await asyncio.wait(tasks, timeout=wait_seconds)

    async def _fetch(self, job_id: str) -> None:
        try:
            report = await self._orchestrator.job_status(job_id)
        except OrchestratorUnavailableError:
            return
        finally:
            del self._requests[job_id]
        self._cache[job_id] = time.monotonic(), report
        self._cache.move_to_end(job_id)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)


def _apply(report: JobStatusReport, job: Job) -> None:
    if report.lost:
        job.lost = True
        return
    if report.status is None or report.status is JobStatus.QUEUED:
        return
    job.status = report.status
    percents = [percent for percent in (job.percent, report.percent) if percent is not None]
    job.percent = 100.0 if report.status is JobStatus.COMPLETED else max(percents, default=None)
    if report.status in ENDED:
        job.error = job.error or report.error
        job.completed_at = report.completed_at
