"""Uploads: the CPU time that a document costs an instance, through nginx with TLS."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import statistics
import time
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING

from bench.baselines import nginx_before
from bench.figures import Report, at_most
from bench.parts.common import log
from bench.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.figures import Row
    from bench.parts.common import Bench

_MEBIBYTE = 1024 * 1024
_RATE = 50_000_000
_PERCENT = 100
# What an instance uses without an upload is not the cost of one.
_IDLE_SECONDS = 5.0
_MOST_PERCENT = 10
_TUS = {"Tus-Resumable": "1.0.0"}


def measure_uploads(bench: Bench) -> list[Report]:
    how = (
        f"one document at {_RATE // 1_000_000} MB/s for {bench.seconds:g} s, through nginx with TLS; "
        f"{bench.repeat} turns, medians"
    )
    report = Report("uploads", how, _columns)
    directory = bench.site.folder / "uploads"
    directory.mkdir()
    report.runs += [_upload(bench, directory) for _ in range(bench.repeat)]
    for name in ("instance", "nginx"):
        median = statistics.median(_PERCENT * row[f"{name}_share"] for row in report.runs)
        limit = at_most(_MOST_PERCENT) if name == "instance" else None
        report.figure(f"{name} at {_RATE // 1_000_000} MB/s", median, "% of a core", limit)
    return [report]


def _upload(bench: Bench, directory: Path) -> Row:
    site, size = bench.site, int(bench.seconds * _RATE)
    settings = {
        "UPLOADS_DIRECTORY": str(directory),
        "UPLOAD_MAX_BYTES": str(size),
        "UPLOADS_USER_MAX_BYTES": str(size),
    }
    with (
        site.new_run() as run,
        site.instance(run, settings) as (instance, instance_port),
        nginx_before(site, instance_port) as (nginx, port),
    ):
        client = _Client(port, site.token(instance_port))
        path = client.begin(size)
        idle = instance.cpu_seconds()
        time.sleep(_IDLE_SECONDS)
        idle = (instance.cpu_seconds() - idle) / _IDLE_SECONDS
        before = [process.cpu_seconds() for process in (instance, nginx)]
        grown = instance.memory().rss
        seconds = client.send(path, size)
        used = [
            process.cpu_seconds() - former
            for process, former in zip((instance, nginx), before, strict=True)
        ]
        grown = instance.memory().rss - grown
        client.delete(path)
    row = {
        "megabytes": size / 1_000_000,
        "seconds": seconds,
        # At the rate, which a busy machine may not reach.
        "idle_share": idle,
        "instance_share": (used[0] - idle * seconds) * _RATE / size,
        "nginx_share": used[1] * _RATE / size,
        "grown_kib": grown,
        "load_average": round(os.getloadavg()[0], 2),
    }
    log(
        f"{row['megabytes']:.0f} MB in {seconds:.1f} s: instance "
        f"{_PERCENT * row['instance_share']:.1f} %, nginx {_PERCENT * row['nginx_share']:.1f} %"
    )
    return row


class _Client:
    """A client of tus that sends at a given rate."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {**_TUS, "Authorization": f"Bearer {token}"}

    def begin(self, size: int) -> str:
        """Begin an upload; return its path."""
        name = b64encode(b"bench.pdf").decode()
        headers = {"Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
        path: str = self._ask("POST", "/api/uploads", headers, HTTPStatus.CREATED)
        return path

    def send(self, path: str, size: int) -> float:
        """Send all bytes; return the seconds until the response."""
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size),
            "Upload-Offset": "0",
        }
        began = time.monotonic()
        self._ask("PATCH", path, headers, HTTPStatus.NO_CONTENT, _paced(size))
        return time.monotonic() - began

    def delete(self, path: str) -> None:
        self._ask("DELETE", path, {}, HTTPStatus.NO_CONTENT)

    def _ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        expected: int,
        body: Iterator[bytes] | None = None,
    ) -> str:
        context = ssl.create_default_context()
        context.check_hostname = False
        # The certificate is self-signed, by this measurement.
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=context)
        try:
            connection.request(method, path, body, self._headers | headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != expected:
            raise BenchError(f"{method} {path}: {answer.status} {json.loads(content)}")
        return answer.getheader("Location", "")


def _paced(size: int) -> Iterator[bytes]:
    """Yield a document of this size at the rate."""
    began = time.monotonic()
    piece = b"%PDF-1.7\n".ljust(_MEBIBYTE, b"x")
    sent = 0
    while sent < size:
        ahead = sent / _RATE - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
        yield piece[: size - sent]
        sent += min(len(piece), size - sent)


def _columns(row: Row) -> Row:
    return {
        "MB": row["megabytes"],
        "s": row["seconds"],
        "idle, % of a core": _PERCENT * row["idle_share"],
        "instance, % of a core": _PERCENT * row["instance_share"],
        "nginx, % of a core": _PERCENT * row["nginx_share"],
        "grown KiB": row["grown_kib"],
        "load": row["load_average"],
    }
