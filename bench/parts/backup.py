"""Backup: how long a backup of a large database takes, until its restore into a scratch database is verified."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Report, at_most, median_of
from bench.parts.common import log
from bench.processes import Setting, run
from bench.servers import program

if TYPE_CHECKING:
    from bench.figures import Row
    from bench.parts.common import Bench
    from bench.site import Site

_EVENTS = 1_000_000
_MAX_SECONDS = 120.0
_PROGRAM = Path(__file__).parents[2] / "roles/ag_ui_deployment/files/host"
# Progress events of 1,000 jobs, as Shield publishes them.
_FILL = f"""
INSERT INTO events (stream_ms, stream_seq, event_id, type, job_id, occurred_at, data, metadata)
SELECT 1700000000000 + n, 0, gen_random_uuid(), 'crawl:progress', 'job-' || n % 1000, now(),
       json_build_object('progress', n % 100, 'message', 'Crawled page ' || n, 'url', 'https://docs.example/' || md5(n::text)),
       json_build_object('job_id', 'job-' || n % 1000, 'user_id', gen_random_uuid())
  FROM generate_series(1, {_EVENTS}) AS n
"""  # noqa: S608 - a number of our own
# In place of the image, which the program asks for the position of the consumer group.
_DOCKER = """#!/bin/sh
echo '{"last_id": "0-0", "added": 0, "stored_id": "0-0", "stored_number": 0}'
"""


def measure_backup(bench: Bench) -> list[Report]:
    how = f"{_EVENTS:,} events, encrypted with age, verified; {bench.repeat} turns, medians"
    report = Report("backup", how, _columns)
    with (
        bench.site.new_run() as database,
        # Not in memory, as the archives of a host.
        tempfile.TemporaryDirectory(dir=bench.site.folder) as name,
    ):
        bench.site.postgres.query(database, _FILL)
        settings = _write_host(bench.site, Path(name), database)
        for _ in range(bench.repeat):
            report.runs.append(_back_up(Path(name), settings))
    report.figure("backup", median_of(report.runs, "seconds"), "s", at_most(_MAX_SECONDS))
    return [report]


def _write_host(site: Site, folder: Path, database: str) -> Path:
    """Write the files of a deployed host; return the settings of the program."""
    release = folder / "etc/releases/0123"
    for path in (release, folder / "archives", folder / "programs", folder / "state"):
        path.mkdir(parents=True)
    (folder / "etc/current").symlink_to("releases/0123")
    (release / "release.env").write_text("AG_UI_IMAGE=backend:1\nAG_UI_RELEASE=0123\n")
    (release / "backend.env").write_text("ENV='production'\n")
    docker = folder / "programs/docker"
    docker.write_text(_DOCKER)
    docker.chmod(0o755)
    key = folder / "key"
    run([program("age-keygen"), "--output", str(key)])
    recipient = folder / "recipient"
    recipient.write_text(run([program("age-keygen"), "-y", str(key)]))
    passfile = folder / "pgpass"
    passfile.touch(mode=0o600)
    values: dict[str, Any] = {
        "host": "bench",
        "directory": str(folder / "archives"),
        "database": {
            "host": "127.0.0.1",
            "port": site.postgres.port,
            "name": database,
            "user": "bench",
            "sslmode": "disable",
            "passfile": str(passfile),
        },
        "encryption": "age",
        "recipient": str(recipient),
        "keep": 1,
        "keep_days": 0,
        "rsync_target": "",
        "s3": {},
        "metrics": str(folder / "no-metrics"),
        "configuration": str(folder / "etc"),
        "files": [],
        "state": str(folder / "state"),
        "user": "1001:1001",
    }
    file = folder / "settings.json"
    file.write_text(json.dumps(values))
    return file


def _back_up(folder: Path, settings: Path) -> Row:
    path = f"{folder}/programs:{os.environ['PATH']}"
    setting = Setting(env={**os.environ, "PATH": path, "PYTHONPATH": str(_PROGRAM)})
    load_average = round(os.getloadavg()[0], 2)
    began = time.monotonic()
    run([sys.executable, "-m", "ag_ui_backup", "--settings", str(settings), "run"], setting)
    seconds = time.monotonic() - began
    result = json.loads((folder / "state/backup.json").read_text())
    log(f"{seconds:.1f} s, {result['size']:,} bytes")
    return {
        "events": _EVENTS,
        "seconds": seconds,
        "bytes": result["size"],
        "load_average": load_average,
    }


def _columns(row: Row) -> Row:
    return {
        "events": row["events"],
        "seconds": row["seconds"],
        "MB": row["bytes"] / 1e6,
        "load": row["load_average"],
    }
