"""Calls of the tools' API as a user."""

import json
from typing import Any

import httpx

from src.models.permissions import Role
from src.models.user import User
from tests.support.accounts import bearer
from tests.support.environment import Environment
from tests.support.server import Backend

# An IP address, so that the tests do not depend on DNS.
SITE = "https://8.8.8.8/"


class Caller:
    """Sends the requests of one user."""

    def __init__(self, backend: Backend, user: User) -> None:
        self.backend = backend
        self.user = user
        self.token = backend.token_of(user)

    async def post(self, path: str, body: Any, key: str | None = None) -> httpx.Response:
        """Send a JSON body; `key` is the Idempotency-Key."""
        headers = bearer(self.token) | {"Content-Type": "application/json"}
        headers |= {"Idempotency-Key": key} if key else {}
        # `json=` cannot send lone surrogates.
        return await self.backend.http.post(path, content=json.dumps(body), headers=headers)

    async def get(self, path: str) -> httpx.Response:
        return await self.backend.http.get(path, headers=bearer(self.token))

    async def crawl(
        self, environment: Environment, key: str | None = None, **marks: str
    ) -> httpx.Response:
        """Crawl two pages; the job publishes to this test's stream."""
        return await self.post(
            "/api/crawl", {"url": site(environment, **marks), "max_pages": 2}, key
        )

    async def jobs(self) -> dict[str, Any]:
        """Return the first page of the user's jobs by id."""
        items = (await self.get("/api/jobs")).json()["items"]
        return {item["id"]: item for item in items}


def site(environment: Environment, **marks: str) -> str:
    """Return a URL with the marks for the simulator (tests/shield/gateway/marks.py)."""
    query = "&".join(
        f"{name}={value}" for name, value in {"stream": environment.stream, **marks}.items()
    )
    return f"{SITE}?{query}"


async def caller(backend: Backend, name: str, role: Role = Role.CONTRIBUTOR) -> Caller:
    """Add a user `NAME@shield.test` with the role; return a caller for it."""
    return Caller(backend, await backend.add_user(f"{name}@shield.test", role))


async def has_job(who: Caller, job_id: str) -> bool:
    return job_id in await who.jobs()


async def has_ended(who: Caller, job_id: str) -> bool:
    """Whether the user sees the job with a time of completion."""
    job = (await who.jobs()).get(job_id)
    return job is not None and job["completed_at"] is not None


async def all_announced(environment: Environment) -> bool:
    """Whether all submissions have been published to the stream."""
    return not await environment.query("SELECT 1 FROM submissions WHERE NOT announced")
