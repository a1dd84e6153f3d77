"""API: latency for active users, and of job lists as the table grows."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Report, at_most, ratio
from bench.parts.common import log
from bench.processes import Setting, free_port, listens, running, wait_for
from bench.site import START_SECONDS
from bench.users import percentile, work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.figures import Row
    from bench.parts.common import Bench
    from bench.site import Site

_TOP = Path(__file__).parents[2]
_JOBS_EACH = 200
_ROWS = (1_000, 1_000_000)
_LISTS = 100
# Disables the limits, which protect against users; the benchmark measures the cost of a response.
UNLIMITED = {
    "RATE_LOGIN_PER_ADDRESS": "100000/minute",
    "RATE_LOGIN_PER_ACCOUNT": "100000/minute",
    "RATE_API_PER_USER": "1000000/minute",
    "RATE_GLOBAL": "10000000/minute",
    "JOBS_PER_USER": "1000000",
    # The users crawl a documentation address (RFC 5737), which the tools refuse by default.
    "TOOLS_ALLOW_PRIVATE_ADDRESSES": "true",
}


def measure_api(bench: Bench) -> list[Report]:
    return [_users_at_work(bench), _growing_list(bench)]


def _users_at_work(bench: Bench) -> Report:
    how = (
        f"users at work for {bench.seconds:g} s, 0.2 to 0.6 s between two requests of a user: "
        "lists, details, queries, submissions; the gateway answers at once"
    )
    report = Report("api", how, _user_columns)
    for users, limit in ((10, 50), (50, 250)):
        row = _run_users(bench, users)
        report.runs.append(row)
        report.figure(f"{users} users, p95", row["p95_ms"], "ms", at_most(limit))
        report.figure(f"{users} users, errors", row["errors"], "answers", at_most(0))
    return report


def _run_users(bench: Bench, users: int) -> Row:
    site = bench.site
    load_average = round(os.getloadavg()[0], 2)
    with site.new_run() as run, gateway(site) as address:
        _add_users(site, run, users)
        settings = {**UNLIMITED, "LITELLM_URL": address, "LITELLM_API_KEY": "sk-bench"}
        with site.instance(run, settings) as (process, port):
            tokens = [site.token(port, _email(number)) for number in range(users)]
            used = process.cpu_seconds()
            answers = work(port, tokens, bench.seconds)
            used = process.cpu_seconds() - used
    times = answers.all()
    row = {
        "users": users,
        "requests": len(times),
        "rate": len(times) / bench.seconds,
        **{f"p{p}_ms": percentile(times, p) for p in (50, 95, 99)},
        "errors": sum(answers.errors.values()),
        "statuses": dict(answers.errors),
        "server_share": used / bench.seconds,
        "load_average": load_average,
    }
    log(f"{users} users: {row['rate']:.0f} requests/s, p95 {row['p95_ms']:.1f} ms")
    return row


@contextlib.contextmanager
def gateway(site: Site) -> Iterator[str]:
    """Start the stub gateway; yield its URL."""
    port = free_port()
    command = [sys.executable, "-m", "bench.gateway", str(port)]
    setting = Setting(env=dict(os.environ), cwd=_TOP)
    with running("gateway", command, site.log("gateway"), setting) as process:
        wait_for("gateway", lambda: listens(port), START_SECONDS, process)
        yield f"http://127.0.0.1:{port}"


def _email(number: int) -> str:
    return f"user{number}@example.org"


def _add_users(site: Site, run: str, users: int) -> None:
    """Add contributors with the administrator's password, and jobs of their own."""
    site.postgres.query(
        run,
        "INSERT INTO users (id, email, password_hash, role, active) "  # noqa: S608 - numbers only
        "SELECT gen_random_uuid(), 'user' || n || '@example.org', password_hash, 'contributor', "
        f"true FROM users, generate_series(0, {users - 1}) n",
    )
    site.postgres.query(run, _jobs("SELECT id FROM users", _JOBS_EACH))


def _jobs(owners: str, each: int) -> str:
    """Return a statement that inserts `each` finished jobs per owner."""
    return (
        "INSERT INTO jobs (id, owner_id, kind, status, percent, created_at, updated_at, "  # noqa: S608 - ours
        "completed_at, ended_ms, ended_seq) "
        "SELECT gen_random_uuid(), owner.id, 'web_crawl', 'completed', 100, moment, moment, moment, "
        "extract(epoch FROM moment)::bigint * 1000, 0 "
        f"FROM ({owners}) owner, generate_series(1, {each}) n, "
        "LATERAL (SELECT now() - n * interval '1 second' AS moment) times"
    )


def _growing_list(bench: Bench) -> Report:
    how = f"a user's first page of jobs, {_LISTS} times, as the table grows"
    report = Report("api", how, _list_columns)
    site = bench.site
    with site.new_run() as run, site.instance(run, UNLIMITED) as (_, port):
        token = site.token(port)
        for rows in _ROWS:
            there = int(site.postgres.query(run, "SELECT count(*) FROM jobs"))
            site.postgres.query(run, _jobs("SELECT id FROM users", rows - there))
            site.postgres.query(run, "ANALYZE jobs")
            milliseconds = sorted(_list_once(port, token) for _ in range(_LISTS))
            row = {"rows": rows, "p50_ms": statistics.median(milliseconds)}
            report.runs.append(row | {"p95_ms": percentile(milliseconds, 95)})
            log(f"{rows:,} jobs: {row['p50_ms']:.1f} ms")
    few, many = (row["p50_ms"] for row in report.runs)
    report.figure("a list of 1,000,000 jobs to one of 1,000", ratio(many, few), "times", at_most(2))
    return report


def _list_once(port: int, token: str) -> float:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/jobs?limit=50", headers={"Authorization": f"Bearer {token}"}
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - an HTTP URL
        json.load(answer)
    return (time.perf_counter() - began) * 1000


def _user_columns(row: Row) -> Row:
    return {
        "users": row["users"],
        "requests/s": row["rate"],
        **{f"p{p} ms": row[f"p{p}_ms"] for p in (50, 95, 99)},
        "errors": row["errors"],
        "% of a core": 100 * row["server_share"],
        "load": row["load_average"],
    }


def _list_columns(row: Row) -> Row:
    return {"jobs": row["rows"], "p50 ms": row["p50_ms"], "p95 ms": row["p95_ms"]}
