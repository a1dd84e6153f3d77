"""TLS: the cost of nginx with the role's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.baselines import BEHIND_TLS, OURS, ours, ours_behind_tls
from bench.figures import Report, median_of, ratio
from bench.parts.common import full_speed_columns, paced_columns, require_no_defects
from bench.parts.full import WORKLOAD
from bench.parts.paced import add_latency_figures, paced_workload

if TYPE_CHECKING:
    from bench.parts.common import Bench

_BASELINES = (OURS, BEHIND_TLS)


def measure_tls(bench: Bench) -> list[Report]:
    return [_full_speed(bench), _paced(bench)]


def _full_speed(bench: Bench) -> Report:
    how = f"full speed, directly and through nginx with TLS; {bench.repeat} turns, medians"
    report = Report("tls", how, full_speed_columns)
    for _ in range(bench.repeat):
        report.runs += [bench.run(start, WORKLOAD) for start in (ours, ours_behind_tls)]
    direct, behind = (median_of(report.runs, "rate", baseline=name) for name in _BASELINES)
    report.figure("directly", direct, "deliveries/s")
    report.figure("through nginx with TLS", behind, "deliveries/s")
    report.figure("through nginx to directly", ratio(behind, direct), "times")
    require_no_defects(report)
    return report


def _paced(bench: Bench) -> Report:
    how = f"200 clients, 200 events/s for {bench.seconds:g} s; {bench.repeat} turns, medians"
    report = Report("tls", how, paced_columns)
    workload = paced_workload(200, 200, bench.seconds)
    for _ in range(bench.repeat):
        report.runs += [bench.run(start, workload) for start in (ours, ours_behind_tls)]
    for name in _BASELINES:
        add_latency_figures(report, name)
    require_no_defects(report)
    return report
