"""Simulated users: each reads lists and jobs, queries and submits, with pauses in between."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAUSE_SECONDS = (0.2, 0.6)
_TIMEOUT_SECONDS = 30.0
# Percentage of each kind of request.
_MIX = {"list": 40, "detail": 30, "query": 20, "submit": 10}


@dataclass
class Answers:
    """Latencies in milliseconds by kind of request, and the counts of error statuses."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, milliseconds: float, status: int) -> None:
        self.milliseconds.setdefault(kind, []).append(milliseconds)
        if status >= HTTPStatus.BAD_REQUEST:
            self.errors[f"{kind} {status}"] += 1

    def all(self) -> list[float]:
        return sorted(one for kind in self.milliseconds.values() for one in kind)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * percent / 100))] if values else 0.0


def work(port: int, tokens: Sequence[str], seconds: float) -> Answers:
    """Simulate one user for each token."""
    return asyncio.run(_work(port, tokens, seconds))


async def _work(port: int, tokens: Sequence[str], seconds: float) -> Answers:
    answers = Answers()
    until = time.monotonic() + seconds
    await asyncio.gather(*(_user(port, token, until, answers) for token in tokens))
    return answers


async def _user(port: int, token: str, until: float, answers: Answers) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(
        base_url=base, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False
    ) as client:
        known = [job["id"] for job in (await client.get("/api/jobs")).json()["items"]]
        await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS[1]))  # noqa: S311 - load, no secret
        while time.monotonic() < until:
            kind = _any_kind()
            began = time.perf_counter()
            try:
                response = await _request(client, kind, known)
                status = response.status_code
            except httpx.HTTPError:
                status = HTTPStatus.GATEWAY_TIMEOUT
            answers.add(kind, (time.perf_counter() - began) * 1000, status)
            await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - load, no secret


async def _request(client: httpx.AsyncClient, kind: str, known: Sequence[str]) -> httpx.Response:
    if kind == "list":
        return await client.get("/api/jobs", params={"limit": 50})
    if kind == "detail":
        return await client.get(f"/api/jobs/{random.choice(known)}")  # noqa: S311 - load, no secret
    if kind == "query":
        return await client.post("/api/query", json={"query": "what is the answer?"})
    # A documentation address (RFC 5737), so that no name is resolved.
    return await client.post("/api/crawl", json={"url": "http://198.51.100.7/", "max_pages": 1})


def _any_kind() -> str:
    return random.choices(list(_MIX), list(_MIX.values()))[0]  # noqa: S311 - load, no secret
