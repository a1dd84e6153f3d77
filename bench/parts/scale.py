"""Scale: throughput and latency with more clients, events, bytes and instances."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench.baselines import ours
from bench.figures import Report
from bench.parts.common import full_speed_columns, paced_columns, require_no_defects
from bench.parts.full import WORKLOAD
from bench.parts.paced import paced_workload

if TYPE_CHECKING:
    from bench.parts.common import Bench

_CLIENTS = (10, 50, 100, 200, 500)
_EVENTS = (1000, 8000)
_RATES = (50, 500, 1000)
# Bytes of an event's data, number of events at full speed, and events per second when paced.
_SIZES = ((4096, 1000, 100), (65536, 100, 10))
_SHARED_CLIENTS = 200
_MAX_SECONDS = 10


def measure_scale(bench: Bench) -> list[Report]:
    return [_full_speed(bench), _paced(bench)]


def _full_speed(bench: Bench) -> Report:
    how = "ours at full speed, by clients, events, bytes of an event, and instances"
    report = Report("scale", how, full_speed_columns)
    workloads = [replace(WORKLOAD, clients=clients) for clients in _CLIENTS]
    workloads += [replace(WORKLOAD, events=events) for events in _EVENTS]
    workloads += [replace(WORKLOAD, events=events, size=size) for size, events, _ in _SIZES]
    report.runs += [bench.run(ours, workload) for workload in workloads]
    shared = replace(WORKLOAD, clients=_SHARED_CLIENTS)
    report.runs.append(bench.run(partial(ours, instances=2), shared))
    require_no_defects(report)
    return report


def _paced(bench: Bench) -> Report:
    seconds = min(bench.seconds, _MAX_SECONDS)
    how = f"ours at a rate for {seconds:g} s, by clients, rate, bytes of an event, and instances"
    report = Report("scale", how, paced_columns)
    workloads = [paced_workload(clients, 200, seconds) for clients in _CLIENTS]
    workloads += [paced_workload(100, rate, seconds) for rate in _RATES]
    workloads += [paced_workload(100, rate, seconds, size) for size, _, rate in _SIZES]
    report.runs += [bench.run(ours, workload) for workload in workloads]
    shared = paced_workload(_SHARED_CLIENTS, 200, seconds)
    report.runs.append(bench.run(partial(ours, instances=2), shared))
    require_no_defects(report)
    return report
