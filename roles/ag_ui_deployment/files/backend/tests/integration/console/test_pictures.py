"""Take the pictures of the README: a page with many jobs, an answer of the agent, and the stream."""

import base64
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from src.models.permissions import Role
from src.models.user import User
from tests.support.builders import shield_event
from tests.support.console import SCREENSHOTS, Console
from tests.support.environment import Environment
from tests.support.scripted import ScriptedServer, answer, frames, tool_result
from tests.support.server import Backend, running
from tests.support.waiting import until

STREAM = "shield:events"
NO_RATE = "\N{EN DASH}"
MAX_BYTES = 120 * 1024
QUESTION = "Which backups do we keep, and for how long?"
ANSWER = """\
Three kinds of backups are kept, each encrypted with `age`:

| Kind | When | Kept for |
| :-- | :-- | --: |
| Full dump | every night at 02:30 | 14 days |
| Position of the stream | with each dump | 14 days |
| Archive | first day of a month | 12 months |

Each dump is **restored into a scratch database** before it counts. The details are in \
[Backup and restore](https://docs.example.org/backup)."""


@pytest.fixture
async def environment(environment: Environment) -> AsyncIterator[Environment]:
    """The environment of the test, with the name of the stream that a site has."""
    environment.stream = STREAM
    await environment.redis.delete(STREAM)
    yield environment
    async for key in environment.redis.scan_iter(f"{STREAM}*"):
        await environment.redis.delete(key)


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedServer]:
    """A model that asks Shield and then answers."""
    async with ScriptedServer() as server:
        server.answers("/mcp-rest/tools/list", answer(200, {"tools": [_tool()]}))
        server.answers(
            "/mcp-rest/tools/call", tool_result({"answer": "…", "context": ["backup.md"]})
        )
        call = {"name": "lightrag_query", "arguments": json.dumps({"query": QUESTION})}
        called = {"tool_calls": [{"index": 0, "id": "1", "function": call}]}
        server.answers(
            "/v1/chat/completions",
            frames(_chunk(called), _chunk({}, "tool_calls"), "[DONE]"),
            frames(_chunk({"content": ANSWER}), _chunk({}, "stop"), "[DONE]"),
        )
        yield server


@pytest.fixture
async def backend(
    environment: Environment, gateway: ScriptedServer, tmp_path: Path
) -> AsyncIterator[Backend]:
    """Two instances, as a site has; the browser uses the first."""
    changes = {"LITELLM_URL": gateway.url, "UPLOADS_DIRECTORY": str(tmp_path)}
    second = environment.settings(REDIS_CONSUMER_NAME="host-8003", **changes)
    async with running(environment.settings(**changes)) as instance, running(second):
        yield instance


@pytest.fixture
async def admin(console: Console, environment: Environment) -> User:
    await console.page.set_viewport_size({"width": 1280, "height": 720})
    user = await console.log_in(Role.ADMIN)
    await environment.query("UPDATE users SET name = 'Alice' WHERE id = $1", user.id)
    return user


async def test_picture_of_live(console: Console, environment: Environment, admin: User) -> None:
    for seconds, job, events in _jobs():
        at = round((time.time() - seconds) * 1000)
        await environment.publish(
            *(
                shield_event(kind, data, job=job, user=str(admin.id), timestamp=at + step * 1000)
                for step, (kind, data) in enumerate(events)
            )
        )
    page = console.page
    await expect(page.get_by_role("row").filter(has_text="Alice")).to_have_count(7)
    await expect(page.get_by_role("button", name=re.compile("Running ?3"))).to_be_visible()
    await _take(console, "live")


async def test_picture_of_the_agent(console: Console, admin: User) -> None:
    assert admin.role is Role.ADMIN
    page = console.page
    await page.get_by_role("link", name="Agent", exact=True).click()
    await page.get_by_label("Message", exact=True).fill(QUESTION)
    await page.get_by_label("Message", exact=True).press("Enter")
    await expect(page.locator(".reply table")).to_be_visible()
    await expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    # It is unfolded if the page has shown it while it ran.
    await page.locator("details.call").evaluate("call => { call.open = false; }")
    await _take(console, "agent")


async def test_picture_of_the_stream(
    console: Console, environment: Environment, admin: User
) -> None:
    assert admin.role is Role.ADMIN
    await environment.publish({b"type": b"job:queued", b"data": b"{not JSON"})
    await until(environment.dead_letters)
    page = console.page
    await page.get_by_role("link", name="Stream").click()
    rate = page.locator(".facts div").filter(has_text="Events per second").locator("dd")

    # The rate is that between two reports.
    async def has_rate() -> bool:
        await environment.publish(*(shield_event(job=f"job-{number}") for number in range(40)))
        return await rate.inner_text() not in {NO_RATE, "0"}

    await until(has_rate, 30)
    await expect(page.get_by_text("Healthy")).to_have_count(2)
    await _take(console, "stream")


def _jobs() -> list[tuple[int, str, list[tuple[str, dict[str, Any]]]]]:
    """How many seconds ago each job began, its id, and its events, one a second."""
    crawl, ingest = {"job_type": "crawl"}, {"job_type": "ingest"}
    docs = crawl | {"url": "https://docs.example.org/guide/"}
    news = crawl | {"url": "https://www.example.net/news/2026/"}
    report = ingest | {"file_path": "/srv/shield/inbox/quarterly-report.pdf"}
    manual = ingest | {"file_path": "/srv/shield/inbox/manual.docx"}
    question = {"job_type": "query", "query": "Which sharks live in fresh water?"}
    pages = {"pages_crawled": 31, "pages_total": 50, "chunks_processed": 240, "chunks_total": 310}
    chunks = {"chunks_processed": 18, "chunks_total": 45, "entities_extracted": 96}
    wiki = crawl | {"url": "https://wiki.example.com/Shield"}
    return [
        (3, "job-1", [("job:queued", crawl | {"url": "https://blog.example.org/"})]),
        (
            48,
            "job-2",
            [
                ("job:started", docs),
                (
                    "job:progress",
                    pages
                    | {
                        "percent_complete": 62,
                        "phase": "crawling",
                        "message": "Crawled /guide/streams",
                    },
                ),
            ],
        ),
        (
            75,
            "job-3",
            [
                ("job:started", report),
                (
                    "job:progress",
                    chunks
                    | {
                        "percent_complete": 40,
                        "phase": "extracting_entities",
                        "message": "Processed page 18",
                    },
                ),
            ],
        ),
        (
            90,
            "job-4",
            [("job:started", news), ("job:progress", {"message": "Reading the site map"})],
        ),
        (
            130,
            "job-5",
            [("query.started", question), ("job:complete", {"result": {"answer": "…"}})],
        ),
        (
            340,
            "job-6",
            [
                ("job:started", wiki),
                ("job:progress", {"percent_complete": 30}),
                ("job:failed", {"error": "The host does not answer"}),
            ],
        ),
        (
            600,
            "job-7",
            [
                ("job:started", manual),
                ("job:progress", chunks | {"percent_complete": 55}),
                ("job:cancelled", {}),
            ],
        ),
    ]


def _tool() -> dict[str, Any]:
    return {"name": "lightrag_query", "description": "Ask the knowledge graph", "inputSchema": {}}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


async def _take(console: Console, name: str) -> None:
    """Store what is in sight, as small as the README needs it; docs/images has copies."""
    await console.page.mouse.move(0, 0)
    session = await console.page.context.new_cdp_session(console.page)
    taken = await session.send("Page.captureScreenshot", {"format": "webp", "quality": 85})
    image = base64.b64decode(taken["data"])
    assert len(image) < MAX_BYTES
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"{name}.webp").write_bytes(image)
