"""Requests the status of a job from the orchestrator, for jobs without recent events."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from src.config import Settings
from src.models.job import JobStatus
from src.services.gateway.tool_results import sanitize
from src.utils.circuit_breaker import CircuitBreaker, CircuitOpenError

# Timeout of a whole call, in seconds.
_TIMEOUT = 1.0
_CONNECTIONS = 10
_STATUS = {
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
            # standing() sets a timeout for the whole call.
            timeout=None,  # noqa: S113
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            verify=ssl.create_default_context(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def standing(self, job_id: str) -> JobStatusReport:
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
                answer = await self._http.get(f"/jobs/{quote(job_id, safe='')}")
        except TimeoutError as error:
            self.breaker.failed("does not answer in time")
            raise OrchestratorUnavailableError from error
        except httpx.RequestError as error:
            self.breaker.failed("cannot be reached")
            raise OrchestratorUnavailableError from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            self.breaker.failed(f"answers {answer.status_code}")
            raise OrchestratorUnavailableError
        self.breaker.succeeded()
        if answer.status_code == httpx.codes.NOT_FOUND and _is_json(answer):
            return JobStatusReport(lost=True)
        return _read(answer)


def _is_json(answer: httpx.Response) -> bool:
    """Whether the response is from the orchestrator, and not from a proxy in front of it."""
    return str(answer.headers.get("content-type")).startswith("application/json")


def _read(answer: httpx.Response) -> JobStatusReport:
    try:
        job = answer.json()
        status = _STATUS[job["status"]]
    except (ValueError, KeyError, TypeError) as error:
        raise OrchestratorUnavailableError from error
    percent, message = job.get("percent_complete"), job.get("error_message")
    return JobStatusReport(
        status=status,
        percent=min(max(float(percent), 0.0), 100.0) if isinstance(percent, int | float) else None,
        error=sanitize(message, {}) if isinstance(message, str) else None,
        completed_at=_moment(job.get("completed_at")),
    )


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
