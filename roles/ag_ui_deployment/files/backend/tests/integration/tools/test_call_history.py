"""The list of past calls of tools."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from src.models.permissions import Role
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import Backend
from tests.support.tools import Caller, caller
from tests.support.waiting import until


async def calls(who: Caller, **query: Any) -> list[dict[str, Any]]:
    """Read all pages."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        params = httpx.QueryParams({**query, "cursor": cursor})
        page = (await who.get(f"/api/calls?{params}")).json()
        found += page["items"]
        cursor = page["next_cursor"]
    return found


async def test_calls_of_the_user_and_all_for_an_administrator(
    backend: Backend, carol: Caller, environment: Environment
) -> None:
    root, victor = await caller(backend, "root", Role.ADMIN), await caller(backend, "victor")
    url = "https://example.org/?token=hidden"
    await carol.post("/api/tools/qdrant_find", {"arguments": {"query": "x" * 600}})
    await carol.post("/api/tools/qdrant_find", {"arguments": {"query": 5}})
    await carol.post("/api/tools/rm", {"arguments": {}})
    job = (await carol.crawl(environment)).json()["job_id"]
    await victor.post("/api/crawl", {"url": url, "workspace": "nowhere"})

    async def all_are_stored() -> bool:
        return len(await calls(root, limit=2)) == 5

    await until(all_are_stored)
    shown = await calls(carol, limit=3)
    assert [(one["tool"], one["outcome"], one["error"], one["job_id"]) for one in shown] == [
        ("crawl_web", "success", None, job),
        ("rm", "failure", "tool-not-found", None),
        ("qdrant_find", "failure", "invalid-request", None),
        ("qdrant_find", "success", None, None),
    ]
    assert {one["user_id"] for one in shown} == {str(carol.user.id)}
    assert len(shown[-1]["arguments"]["query"]) < 600
    assert all(0 <= one["duration_ms"] < 60_000 for one in shown)
    [refused] = await calls(victor)
    assert (refused["outcome"], refused["workspace"]) == ("denied", "nowhere")
    assert "hidden" not in refused["arguments"]["url"]


async def test_calls_of_a_job(backend: Backend, carol: Caller, environment: Environment) -> None:
    root, victor = await caller(backend, "root", Role.ADMIN), await caller(backend, "victor")
    job = (await carol.crawl(environment)).json()["job_id"]
    await carol.crawl(environment)
    for who in (carol, victor):
        await who.post("/api/tools/get_job_status", {"arguments": {"job_id": job}})

    async def all_are_stored() -> bool:
        return len(await calls(root)) == 4

    await until(all_are_stored)
    shown = await calls(root, job_id=job, limit=1)
    assert [(one["tool"], one["outcome"], one["user_id"]) for one in shown] == [
        ("get_job_status", "failure", str(victor.user.id)),
        ("get_job_status", "success", str(carol.user.id)),
        ("crawl_web", "success", str(carol.user.id)),
    ]
    assert await calls(carol, job_id=job) == shown[1:]
    assert await calls(carol, job_id="unknown") == []
    check_problem(await carol.get("/api/calls?job_id=a%00"), 422, "invalid-request")


@pytest.mark.parametrize("cursor", ["x", "dG9vbC1jYWxscyB5IHo="])
async def test_invalid_cursor_is_refused(carol: Caller, cursor: str) -> None:
    check_problem(await carol.get(f"/api/calls?cursor={cursor}"), 400, "bad-cursor")


async def test_old_calls_are_deleted(
    backend: Backend, carol: Caller, environment: Environment
) -> None:
    for days in (29, 31):
        await environment.query(
            "INSERT INTO tool_calls (id, user_id, workspace, tool, arguments, outcome, started_at, "
            "duration_ms) VALUES (gen_random_uuid(), $1, 'default', $2, '{}', 'success', "
            "now() - $3::interval, 1)",
            *(carol.user.id, f"after-{days}", timedelta(days=days)),
        )
    await backend.services.tools.history.retain_if_alone()
    assert [one["tool"] for one in await calls(carol)] == ["after-29"]
