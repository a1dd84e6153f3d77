"""Paced: latency and cost at a rate that most baselines sustain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.baselines import NCHAN, OURS, nchan, ours, xread
from bench.figures import Report, at_most, median_of, ratio
from bench.measure import Workload
from bench.parts.common import paced_columns, require_no_defects

if TYPE_CHECKING:
    from bench.parts.common import Bench

_PERCENT = 100


def paced_workload(clients: int, rate: float, seconds: float, size: int = 300) -> Workload:
    """Build a workload; the timeout is twice the duration, for baselines that fall behind."""
    return Workload(clients, round(rate * seconds), rate=rate, size=size, seconds=seconds * 2 + 10)


def measure_paced(bench: Bench) -> list[Report]:
    how = f"200 clients, 200 events/s for {bench.seconds:g} s; {bench.repeat} turns, medians"
    report = Report("paced", f"{how}; xread once, to show", paced_columns)
    workload = paced_workload(200, 200, bench.seconds)
    for _ in range(bench.repeat):
        report.runs += [bench.run(start, workload) for start in (ours, nchan)]
    report.runs.append(bench.run(xread, workload))
    for name in (OURS, NCHAN):
        add_latency_figures(report, name)
    ours_p99, nchan_p99 = (
        median_of(report.runs, "p99_ms", baseline=name) for name in (OURS, NCHAN)
    )
    report.figure("ours to nchan, p99", ratio(ours_p99, nchan_p99), "times", at_most(2))
    require_no_defects(report)
    return [report]


def add_latency_figures(report: Report, baseline: str) -> None:
    """Add the baseline's median latencies and CPU utilisation to the report."""
    for name in ("p50", "p95", "p99", "max"):
        latency = median_of(report.runs, f"{name}_ms", baseline=baseline)
        report.figure(f"{baseline}, {name}", latency, "ms")
    share = _PERCENT * median_of(report.runs, "server_share", baseline=baseline)
    report.figure(f"{baseline}, processor of its servers", share, "% of a core")
