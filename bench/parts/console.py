"""Console: how fast the page Live appears, and how smooth it stays with many jobs."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import statistics
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from playwright.sync_api import sync_playwright

from bench.figures import Report, at_most
from bench.parts.common import log
from bench.processes import BenchError
from bench.users import percentile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser, Page, Response
    from redis import Redis

    from bench.figures import Row
    from bench.parts.common import Bench
    from bench.site import Site

_FEW, _RUNNING, _ROWS = 100, 1_000, 5_000
_EVENTS_PER_SECOND = 200
_PUBLISH_EVERY_SECONDS = 0.05
# A pixel distance that replaces all rows in sight, and how often it takes to reach the last row.
_WHEEL_PIXELS, _WHEEL_STEPS = 1_400, 200
# The screen of the browser shows 60 frames a second.
_LONG_FRAME_MS = 50
_TASK_LIMIT_MS = 50
_PAINT_LIMIT_MS = 1_000
_SIZE_LIMIT_KIB = 250
_WAIT_MS = 120_000
# Debian and Ubuntu name the program differently.
_PROGRAMS = ("chromium", "chromium-browser")
_OPTIONS = ("--no-sandbox", "--disable-dev-shm-usage")
_TRACE, _TASK = "toplevel", "ThreadControllerImpl::RunTask"

_PAINTED = "performance.getEntriesByName('first-contentful-paint').length > 0"
_PAINTED_AT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_COUNT_FRAMES = """() => {
    window.benchFrames = [];
    let last = performance.now();
    const next = (now) => { window.benchFrames.push(now - last); last = now; requestAnimationFrame(next); };
    requestAnimationFrame(next);
}"""


def measure_console(bench: Bench) -> list[Report]:
    how = (
        f"Chromium at 1280 x 720; the page Live with {_FEW} jobs, {bench.repeat} times; scrolled through "
        f"{_ROWS:,} running jobs; {_RUNNING:,} running jobs with {_EVENTS_PER_SECOND} events/s for "
        f"{bench.seconds:g} s"
    )
    report = Report("console", how, _columns)
    with _chromium() as browser:
        paints = _paints(bench, browser)
        scroll = _scroll(bench, browser)
        events = _events(bench, browser)
    report.runs += [*paints, scroll, events]
    painted = statistics.median(row["painted_ms"] for row in paints)
    report.figure("first contentful paint of Live", painted, "ms", at_most(_PAINT_LIMIT_MS))
    size = max(row["kib"] for row in paints)
    report.figure("loaded for Live, gzipped", size, "KiB", at_most(_SIZE_LIMIT_KIB))
    for name, row in (("scrolling", scroll), ("events", events)):
        longest = row["longest_task_ms"]
        report.figure(f"{name}: longest task", longest, "ms", at_most(_TASK_LIMIT_MS))
        report.figure(f"{name}: most processor time of a task", row["task_cpu_ms"], "ms")
    report.figure("events: frames per second", events["frames_per_second"], "frames")
    return [report]


def _paints(bench: Bench, browser: Browser) -> list[Row]:
    """Open the page Live of a user who is logged in, each time with an empty cache."""
    site = bench.site
    with site.new_run() as run, site.instance(run) as (_, port):
        _start_jobs(site.redis.client, run, _FEW)
        with _page(browser) as page:
            _log_in(site, page, port)
            cookies = page.context.cookies()
        rows = []
        for _ in range(bench.repeat):
            with _page(browser) as page:
                page.context.add_cookies([_to_add(cookie) for cookie in cookies])
                rows.append(_row("paint", _FEW, **_paint(page, port)))
            log(f"first contentful paint: {rows[-1]['painted_ms']:.0f} ms")
    return rows


def _paint(page: Page, port: int) -> Row:
    loaded: list[Response] = []

    def keep(response: Response) -> None:
        loaded.append(response)

    page.on("response", keep)
    page.goto(_address(port))
    page.wait_for_function(_PAINTED)
    painted = page.evaluate(_PAINTED_AT)
    _wait_for_rows(page, _FEW)
    listed = page.evaluate("performance.now()")
    files = [one for one in loaded if "/console/" in one.url and one.ok]
    return {
        "painted_ms": painted,
        "listed_ms": listed,
        "kib": sum(len(gzip.compress(one.body())) for one in files) / 1024,
    }


def _scroll(bench: Bench, browser: Browser) -> Row:
    site = bench.site
    with site.new_run() as run, site.instance(run) as (_, port), _page(browser) as page:
        _start_jobs(site.redis.client, run, _ROWS)
        _log_in(site, page, port)
        _wait_for_rows(page, _ROWS)
        page.mouse.move(600, 500)
        with _measured(browser, page) as row:
            for _ in range(_WHEEL_STEPS):
                page.mouse.wheel(0, _WHEEL_PIXELS)
            page.wait_for_function(
                "document.querySelector('.job-body').getBoundingClientRect().bottom < innerHeight + 200"
            )
        in_document = page.locator(".job-body [data-row]").count()
    return _row("scroll", _ROWS, rows_in_document=in_document, **row)


def _events(bench: Bench, browser: Browser) -> Row:
    site = bench.site
    with site.new_run() as run, site.instance(run) as (_, port), _page(browser) as page:
        jobs = _start_jobs(site.redis.client, run, _RUNNING)
        _log_in(site, page, port)
        _wait_for_rows(page, _RUNNING)
        with _measured(browser, page) as row, _publishing(site.redis.client, run, jobs):
            page.wait_for_timeout(bench.seconds * 1000)
    return _row("events", _RUNNING, **row)


@contextlib.contextmanager
def _chromium() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        raise BenchError("chromium is not installed; script/bench installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def _page(browser: Browser) -> Iterator[Page]:
    """A page of a new profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(_WAIT_MS)
    try:
        yield context.new_page()
    finally:
        context.close()


def _address(port: int) -> str:
    # Chromium accepts cookies that are only for HTTPS from this name.
    return f"http://localhost:{port}/console/"


def _to_add(cookie: Any) -> Any:
    return {name: cookie[name] for name in ("name", "value", "domain", "path", "secure")}


def _log_in(site: Site, page: Page, port: int) -> None:
    page.goto(_address(port))
    page.get_by_label("Email address").fill(site.email)
    page.get_by_label("Password").fill(site.password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Live").wait_for()


def _wait_for_rows(page: Page, jobs: int) -> None:
    page.locator(f"[role=table][aria-rowcount='{jobs + 1}']").wait_for()


@contextlib.contextmanager
def _measured(browser: Browser, page: Page) -> Iterator[Row]:
    """Fill the row with the frames and the tasks of the page during the block."""
    row: Row = {"load_average": round(os.getloadavg()[0], 2)}
    page.evaluate(_COUNT_FRAMES)
    browser.start_tracing(page=page, categories=[_TRACE])
    began = time.monotonic()
    yield row
    seconds = time.monotonic() - began
    frames = sorted(page.evaluate("window.benchFrames"))
    row |= {
        "frames_per_second": len(frames) / seconds,
        "frame_p99_ms": percentile(frames, 99),
        "long_frames": sum(frame > _LONG_FRAME_MS for frame in frames),
        **_tasks(browser.stop_tracing(), seconds),
    }
    log(f"{row['frames_per_second']:.0f} frames/s, longest task {row['longest_task_ms']:.0f} ms")


def _tasks(trace: bytes, seconds: float) -> Row:
    """Durations of the tasks of the page's main thread. Their processor time is without waiting for a core."""
    events: Sequence[Row] = json.loads(trace)["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        event for event in events if event["name"] == _TASK and (event["pid"], event["tid"]) in main
    ]
    cpu = [task.get("tdur", 0) / 1000 for task in tasks]
    return {
        "longest_task_ms": max(task.get("dur", 0) for task in tasks) / 1000,
        "task_cpu_ms": max(cpu),
        "main_thread_share": sum(cpu) / 1000 / seconds,
    }


def _start_jobs(redis: Redis, stream: str, number: int) -> list[str]:
    jobs = [str(uuid4()) for _ in range(number)]
    pipeline = redis.pipeline(transaction=False)
    for index, job in enumerate(jobs):
        data = {"job_type": "crawl", "url": f"https://docs.example.org/guide/{index}"}
        pipeline.xadd(stream, _entry("job:started", job, data))
    pipeline.execute()
    return jobs


@contextlib.contextmanager
def _publishing(redis: Redis, stream: str, jobs: Sequence[str]) -> Iterator[None]:
    """Publish progress of all jobs in turn for the duration of the block."""
    stop = threading.Event()

    def publish() -> None:
        began, sent = time.monotonic(), 0
        while not stop.wait(_PUBLISH_EVERY_SECONDS):
            due = int((time.monotonic() - began) * _EVENTS_PER_SECOND)
            pipeline = redis.pipeline(transaction=False)
            for number in range(sent, due):
                turn, index = divmod(number, len(jobs))
                data: Row = {"percent_complete": min(99, turn), "pages_crawled": turn}
                data |= {"pages_total": 100, "message": f"Crawled page {turn}"}
                pipeline.xadd(stream, _entry("job:progress", jobs[index], data))
            pipeline.execute()
            sent = due

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _entry(type_: str, job: str, data: Row) -> dict[Any, Any]:
    return {
        "event_id": uuid4().hex,
        "type": type_,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "job_id": job,
        "data": json.dumps(data),
        "metadata": "{}",
    }


def _row(what: str, jobs: int, **measured: Any) -> Row:
    return {"what": what, "jobs": jobs, **measured}


def _columns(row: Row) -> Row:
    return {
        "what": row["what"],
        "jobs": row["jobs"],
        "painted ms": row.get("painted_ms"),
        "listed ms": row.get("listed_ms"),
        "longest task ms": row.get("longest_task_ms"),
        "most cpu ms": row.get("task_cpu_ms"),
        "main thread": row.get("main_thread_share"),
        "frames/s": row.get("frames_per_second"),
        "frame p99 ms": row.get("frame_p99_ms"),
        f"frames > {_LONG_FRAME_MS} ms": row.get("long_frames"),
        "rows in document": row.get("rows_in_document"),
        "load": row.get("load_average"),
    }
