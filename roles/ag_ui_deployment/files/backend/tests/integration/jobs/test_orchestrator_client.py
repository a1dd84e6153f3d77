"""Parsing of the orchestrator's job status, and the time limit of its responses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from src.models.job import JobStatus
from src.services.jobs import orchestrator_client
from src.services.jobs.orchestrator_client import OrchestratorClient, OrchestratorUnavailableError
from src.utils.circuit_breaker import CircuitBreaker
from tests.support.builders import settings_of
from tests.support.scripted import DRIPS, ScriptedServer, answer


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[OrchestratorClient]:
    settings = settings_of(ORCHESTRATOR_URL=url)
    client = OrchestratorClient(settings, CircuitBreaker.of(settings))
    try:
        yield client
    finally:
        await client.close()


async def test_known_and_unknown_job() -> None:
    async with ScriptedServer() as server, client_of(server.url) as client:
        server.answers("/jobs/1", answer(200, {"status": "processing", "percent_complete": 40}))
        server.answers("/jobs/2", answer(404, {"detail": "Job 2 not found"}))
        known = await client.job_status("1")
        assert (known.status, known.percent, known.lost) == (JobStatus.RUNNING, 40.0, False)
        assert (await client.job_status("2")).lost


@pytest.mark.parametrize(
    "said",
    [
        answer(404, b"<html>no such route</html>", "text/html"),
        answer(404, b"", "text/plain"),
        answer(200, {"status": "unheard of"}),
        answer(200, b"not packed", content_encoding="gzip"),
        answer(500, {"detail": "x"}),
        b"",
    ],
)
async def test_unusable_response_is_unavailability(said: bytes) -> None:
    async with ScriptedServer() as server, client_of(server.url) as client:
        server.answers("/jobs/1", said)
        with pytest.raises(OrchestratorUnavailableError):
            await client.job_status("1")


async def test_slow_response_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrator_client, "_TIMEOUT", 0.2)

    async with ScriptedServer() as server, client_of(server.url) as client:
        server.answers("/jobs/1", DRIPS)
        async with asyncio.timeout(5):
            with pytest.raises(OrchestratorUnavailableError):
                await client.job_status("1")
        assert "does not answer in time" in client.breaker.describe()
