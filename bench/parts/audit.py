"""Audit: rates of storing and verifying entries, and the effect on the event stream."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.baselines import OURS, ours
from bench.figures import Report, at_least, at_most, median_of, ratio
from bench.parts.common import log, paced_columns, require_no_defects
from bench.parts.paced import paced_workload
from bench.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.baselines import Baseline
    from bench.figures import Row
    from bench.parts.common import Bench, Start
    from bench.site import Site

_CALLERS = 50
_MAX_SECONDS = 10.0
_MIN_RATE = 1000
# The minimum share of recorded entries that must be stored by the end.
_MIN_SHARE = 0.95
_RECORDER = ("-m", "bench.recorder")
_WITH_ENTRIES = f"{OURS}, {_MIN_RATE} entries/s"


def measure_audit(bench: Bench) -> list[Report]:
    return [_storing(bench), _with_event_stream(bench)]


def _storing(bench: Bench) -> Report:
    seconds = min(bench.seconds, _MAX_SECONDS)
    how = (
        f"{_CALLERS} callers in each instance record one entry after the other for {seconds:g} s; "
        "then the log is verified"
    )
    report = Report("audit", how, _storing_columns)
    for instances in (1, 3):
        row = _store(bench, instances, seconds)
        report.runs.append(row)
        name = f"stored by {instances} instance{'s' if instances > 1 else ''}"
        report.figure(name, row["rate"], "entries/s", at_least(_MIN_RATE))
        report.figure(f"{name}, verified", row["verified_rate"], "entries/s")
    return report


def _store(bench: Bench, instances: int, seconds: float) -> Row:
    site = bench.site
    load_average = round(os.getloadavg()[0], 2)
    with site.new_run() as run:
        with contextlib.ExitStack() as stack:
            program = (*_RECORDER, "--callers", str(_CALLERS))
            for _ in range(instances):
                stack.enter_context(site.instance(run, program=program))
            clock = _Clock(site, run)
            time.sleep(seconds)
            rate = clock.rate()
        entries, verifying = _verify(site, run)
    row = {
        "instances": instances,
        "entries": entries,
        "rate": rate,
        "verified_rate": entries / verifying,
        "load_average": load_average,
    }
    log(f"{instances} instances: {rate:,.0f} entries/s, {row['verified_rate']:,.0f} verified/s")
    return row


class _Clock:
    """Measures the growth rate of a log since its creation."""

    def __init__(self, site: Site, run: str) -> None:
        self._site, self._run = site, run
        self._entries, self._began = self._count(), time.monotonic()

    def rate(self) -> float:
        """Return the entries per second."""
        return (self._count() - self._entries) / (time.monotonic() - self._began)

    def _count(self) -> int:
        newest = "SELECT coalesce(max(seq), 0) FROM audit_log"
        return int(self._site.postgres.query(self._run, newest))


def _verify(site: Site, run: str) -> tuple[int, float]:
    """Return the number of verified entries and the duration in seconds."""
    with site.instance(run) as (_, port):
        headers = {"Authorization": f"Bearer {site.token(port)}"}
        url = f"http://127.0.0.1:{port}/admin/audit/verify"
        began = time.monotonic()
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=600
        ) as answer:
            found = json.load(answer)
        seconds = time.monotonic() - began
    if not found["intact"]:
        raise BenchError(f"the audit log is broken: {found['broken']}")
    return int(found["last_seq"]), seconds


def _with_event_stream(bench: Bench) -> Report:
    how = (
        f"100 clients, 50 events/s for {bench.seconds:g} s, without and with {_MIN_RATE} entries/s "
        f"of the audit log recorded in the same process; {bench.repeat} turns, medians"
    )
    report = Report("audit", how, paced_columns)
    workload = paced_workload(100, 50, bench.seconds)
    rates: list[float] = []
    for _ in range(bench.repeat):
        report.runs += [bench.run(ours, workload), bench.run(_with_entries(rates), workload)]
    minimum = at_least(_MIN_SHARE * _MIN_RATE)
    report.figure("stored meanwhile", statistics.median(rates), "entries/s", minimum)
    without, with_entries = (
        median_of(report.runs, "p99_ms", baseline=name) for name in (OURS, _WITH_ENTRIES)
    )
    report.figure("p99 with entries to without", ratio(with_entries, without), "times")
    report.figure(
        "p99 with entries, above twice the one without",
        max(with_entries - 2 * without, 0.0),
        "ms",
        at_most(20),
    )
    require_no_defects(report)
    return report


def _with_entries(rates: list[float]) -> Start:
    """Return a baseline of ours that also writes audit entries; appends its rate to `rates`."""

    @contextlib.contextmanager
    def start(site: Site) -> Iterator[Baseline]:
        with ours(site, program=(*_RECORDER, "--rate", str(_MIN_RATE))) as baseline:
            clock = _Clock(site, run=baseline.publish_to[-1])
            yield replace(baseline, name=_WITH_ENTRIES)
            rates.append(clock.rate())

    return start


def _storing_columns(row: Row) -> Row:
    return {
        "instances": row["instances"],
        "entries": row["entries"],
        "stored/s": row["rate"],
        "verified/s": row["verified_rate"],
        "load": row["load_average"],
    }
