"""Full speed: the throughput of a baseline without a rate limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.baselines import NCHAN, OURS, XREAD, nchan, ours, xread
from bench.figures import Report, at_least, median_of, ratio
from bench.measure import Workload
from bench.parts.common import full_speed_columns, require_no_defects

if TYPE_CHECKING:
    from bench.parts.common import Bench

WORKLOAD = Workload(clients=100, events=4000, seconds=120)


def measure_full_speed(bench: Bench) -> list[Report]:
    how = f"100 clients, 4,000 events as fast as they are taken; {bench.repeat} turns, medians"
    report = Report("full", how, full_speed_columns)
    for _ in range(bench.repeat):
        report.runs += [bench.run(start, WORKLOAD) for start in (ours, xread, nchan)]
    rates = {name: median_of(report.runs, "rate", baseline=name) for name in (OURS, XREAD, NCHAN)}
    for name, rate in rates.items():
        report.figure(name, rate, "deliveries/s")
    report.figure("ours to xread", ratio(rates[OURS], rates[XREAD]), "times", at_least(40))
    report.figure("ours to nchan", ratio(rates[OURS], rates[NCHAN]), "times", at_least(6))
    require_no_defects(report)
    return [report]
