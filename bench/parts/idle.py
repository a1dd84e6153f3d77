"""Idle: the cost of waiting clients, and the latency of one event to all of them."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from bench.baselines import NCHAN, OURS, nchan, ours
from bench.figures import Report, at_most, median_of
from bench.measure import Workload, connected, deliver
from bench.parts.common import log, require_no_defects
from bench.processes import BenchError, Memory

if TYPE_CHECKING:
    from bench.baselines import Baseline
    from bench.figures import Row
    from bench.parts.common import Bench, Start

_WORKLOAD = Workload(clients=5000, events=1, seconds=30)
_SPARE_FILES = 500


def measure_idle(bench: Bench) -> list[Report]:
    _require_open_files(_WORKLOAD.clients + _SPARE_FILES)
    how = f"5,000 clients on one instance, one event; {bench.repeat} turns, medians"
    report = Report("idle", f"{how}; nchan to show", _columns)
    for _ in range(bench.repeat):
        report.runs += [_run(bench, start) for start in (ours, nchan)]
    for name, memory_limit, reach_limit in ((OURS, at_most(60), at_most(1)), (NCHAN, None, None)):
        memory = median_of(report.runs, "rss_kib_per_client", baseline=name)
        report.figure(f"{name}, memory", memory, "KiB/client", memory_limit)
        reach = median_of(report.runs, "max_ms", baseline=name) / 1000
        report.figure(f"{name}, one event has reached all after", reach, "s", reach_limit)
    require_no_defects(report)
    return [report]


def _require_open_files(required: int) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < required:
        raise BenchError(f"this needs {required} open files, {soft} are allowed; see ulimit -Hn")


def _run(bench: Bench, start: Start) -> Row:
    load_average = round(os.getloadavg()[0], 2)
    with start(bench.site) as baseline:
        before = _memory(baseline)
        with connected(bench.tools, baseline, _WORKLOAD) as clients:
            after = _memory(baseline)
            row = deliver(bench.tools, baseline, _WORKLOAD, clients)
    row |= {
        "rss_kib_per_client": (after.rss - before.rss) / _WORKLOAD.clients,
        "pss_kib_per_client": None
        if before.pss is None or after.pss is None
        else (after.pss - before.pss) / _WORKLOAD.clients,
        "load_average": load_average,
    }
    log(f"{row['baseline']}: {row['rss_kib_per_client']:.1f} KiB, {row['max_ms']:.0f} ms")
    return row


def _memory(baseline: Baseline) -> Memory:
    memories = [process.memory() for process in baseline.servers]
    shares = [memory.pss for memory in memories if memory.pss is not None]
    return Memory(
        sum(memory.rss for memory in memories),
        sum(shares) if len(shares) == len(memories) else None,
    )


def _columns(row: Row) -> Row:
    return {
        "baseline": row["baseline"],
        "clients": row["clients"],
        "RSS KiB/client": row["rss_kib_per_client"],
        "PSS KiB/client": row["pss_kib_per_client"],
        "p50 ms": row["p50_ms"],
        "last ms": row["max_ms"],
        "lost": row["lost"],
        "load": row["load_average"],
    }
