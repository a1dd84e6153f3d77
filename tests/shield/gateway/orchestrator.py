"""The orchestrator: `POST /jobs` and `POST /jobs/{id}/cancel` for the tools, `GET /jobs/{id}`, `GET /jobs`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.shield.gateway.calls import Calls
from tests.shield.gateway.job_runner import GENERATORS, STATUSES, JobRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000


class Orchestrator:
    """The HTTP routes."""

    def __init__(self, runner: JobRunner) -> None:
        self._runner = runner
        self._calls = Calls()

    async def accept(self, request: Request) -> JSONResponse:
        job_request = await request.json()
        if job_request.get("job_type") not in GENERATORS:
            return JSONResponse({"detail": "unknown job_type"}, 422)
        job = self._runner.accept(job_request["job_type"], job_request.get("arguments", {}))
        return JSONResponse({"status": "accepted", "job_id": job.job_id}, 202)

    async def job(self, request: Request) -> JSONResponse:
        job_id = request.path_params["job_id"]
        call = self._calls.begin(path=request.url.path)
        call["state"] = "done"
        job = self._runner.jobs.get(job_id)
        if job is None:
            return JSONResponse({"detail": f"Job {job_id} not found"}, 404)
        if status := job.marks.get("answers"):
            return JSONResponse({"detail": "asked for by the job"}, int(status))
        return JSONResponse(job.as_json())

    async def cancel(self, request: Request) -> JSONResponse:
        job = self._runner.jobs.get(request.path_params["job_id"])
        if job is None:
            return JSONResponse({"detail": "unknown job_id"}, 404)
        if job.completed_at is not None:
            return JSONResponse({"detail": "the job has ended"}, 409)
        job.cancelled.set()
        return JSONResponse(job.as_json(), 202)

    async def jobs(self, request: Request) -> JSONResponse:
        status = request.query_params.get("status")
        limit = request.query_params.get("limit", str(LIMIT_DEFAULT))
        if status is not None and status not in STATUSES:
            return JSONResponse({"detail": f"status is one of {', '.join(STATUSES)}"}, 422)
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= LIMIT_MAX):
            return JSONResponse({"detail": f"limit is 1 to {LIMIT_MAX}"}, 422)
        newest_first = reversed(self._runner.jobs.values())
        chosen = [job.as_json() for job in newest_first if status in {None, job.status}]
        return JSONResponse({"jobs": chosen[: int(limit)], "count": len(chosen[: int(limit)])})

    async def health(self, _request: Request) -> JSONResponse:
        return JSONResponse({"status": "healthy", "jobs": len(self._runner.jobs)})

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/jobs", self.accept, methods=["POST"]),
                Route("/jobs", self.jobs),
                Route("/jobs/{job_id}", self.job),
                Route("/jobs/{job_id}/cancel", self.cancel, methods=["POST"]),
                Route("/health", self.health),
                self._calls.route(),
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self._runner.stop()
