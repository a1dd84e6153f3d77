"""Requests the status of a job from the orchestrator, for jobs without recent events."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from src.config import Settings
from src.models.job import JobStatus
from src.services.gateway.tool_results import sanitize
from src.utils.circuit_breaker import CircuitBreaker, CircuitOpenError
from src.utils.tls import client_context

# Timeout of a whole call, in seconds.
_TIMEOUT = 1.0
_CONNECTIONS = 10
_STATUSES = {
    "queued": JobStatus.QUEUED,
    "processing": JobStatus.RUNNING,
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
}


class OrchestratorUnavailableError(Exception):
    """It does not answer, or with nothing that can be used."""


@dataclass(frozen=True, slots=True)
class JobStatusReport:
    """The status of a job; `lost` if the orchestrator does not know the job."""

    lost: bool = False
    status: JobStatus | None = None
    percent: float | None = None
    error: str | None = None
    completed_at: datetime | None = None


class OrchestratorClient:
    """Calls the orchestrator through a circuit breaker."""

    def __init__(self, settings: Settings, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self._http = httpx.AsyncClient(
            base_url=settings.ORCHESTRATOR_URL,
            # job_status() sets a timeout for the whole call.
            timeout=None,  # noqa: S113
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            verify=client_context(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def job_status(self, job_id: str) -> JobStatusReport:
        """Returns the status of a job.

        Raises:
            OrchestratorUnavailableError: There is no usable response, or the circuit is open.
        """
        try:
            self.breaker.enter()
        except CircuitOpenError as error:
            raise OrchestratorUnavailableError from error
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._http.get(f"/jobs/{quote(job_id, safe='')}")
        except TimeoutError as error:
            self.breaker.failed("does not answer in time")
            raise OrchestratorUnavailableError from error
        except httpx.RequestError as error:
            self.breaker.failed("cannot be reached")
            raise OrchestratorUnavailableError from error
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            self.breaker.failed(f"answers {response.status_code}")
            raise OrchestratorUnavailableError
        self.breaker.succeeded()
        if response.status_code == httpx.codes.NOT_FOUND and _is_json(response):
            return JobStatusReport(lost=True)
        return _read(response)


def _is_json(response: httpx.Response) -> bool:
    """Whether the response is from the orchestrator, and not from a proxy in front of it."""
    return str(response.headers.get("content-type")).startswith("application/json")


def _read(response: httpx.Response) -> JobStatusReport:
    try:
        job = response.json()
        status = _STATUSES[job["status"]]
    except (ValueError, KeyError, TypeError) as error:
        raise OrchestratorUnavailableError from error
    percent, error_message = job.get("percent_complete"), job.get("error_message")
    return JobStatusReport(
        status=status,
        percent=min(max(float(percent), 0.0), 100.0) if isinstance(percent, int | float) else None,
        error=sanitize(error_message, {}) if isinstance(error_message, str) else None,
        completed_at=_parse_timestamp(job.get("completed_at")),
    )


def _parse_timestamp(text: Any) -> datetime | None:
    try:
        timestamp = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
