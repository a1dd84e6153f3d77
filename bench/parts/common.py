"""Shared code of the parts: how to run a measurement, and the columns of its table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.baselines import OURS, Baseline
from bench.figures import at_most
from bench.measure import Tools, Workload, measure
from bench.site import Site

if TYPE_CHECKING:
    from bench.figures import Report, Row

Start = Callable[[Site], AbstractContextManager[Baseline]]

_MIB = 1024 * 1024
_PERCENT = 100


@dataclass(frozen=True)
class Bench:
    """Settings of all parts.

    `repeat` is the number of runs per baseline, `seconds` the duration of a run at a given rate.
    """

    site: Site
    tools: Tools
    repeat: int
    seconds: float

    def run(self, start: Start, workload: Workload) -> Row:
        """Start a baseline and measure it once."""
        with start(self.site) as baseline:
            row = measure(self.tools, baseline, workload)
        log(
            f"{row['baseline']}, {row['clients']} clients: {row['rate']:,.0f} deliveries/s, "
            f"p99 {row['p99_ms']:.1f} ms, lost {row['lost']}"
        )
        return row


def log(progress: str) -> None:
    """Print progress to standard error."""
    sys.stderr.write(f"    {progress}\n")


def full_speed_columns(row: Row) -> Row:
    """Columns for runs at full speed."""
    return {
        "baseline": row["baseline"],
        "instances": row["instances"],
        "clients": row["clients"],
        "events": row["events"],
        "bytes/event": row["event_bytes"],
        "deliveries/s": row["rate"],
        "MiB/s": row["rate"] * row["event_bytes"] / _MIB,
        "seconds": row["seconds"],
        **_defect_columns(row),
        "clients' % of a core": _PERCENT * row["clients_share"],
        "load": row["load_average"],
    }


def paced_columns(row: Row) -> Row:
    """Columns for runs at a given rate."""
    return {
        "baseline": row["baseline"],
        "instances": row["instances"],
        "clients": row["clients"],
        "events/s": row["published_rate"],
        "bytes/event": row["event_bytes"],
        **{f"{name} ms": row[f"{name}_ms"] for name in ("p50", "p95", "p99", "max")},
        **_defect_columns(row),
        "% of a core": _PERCENT * row["server_share"],
        "cpu s": cpu_text(row),
        "load": row["load_average"],
    }


def cpu_text(row: Row) -> str:
    """Format the CPU seconds of a row by process."""
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in row["cpu"].items())


def require_no_defects(report: Report) -> None:
    """Add a figure: events of ours that were lost, duplicated or out of order, with the limit 0."""
    defects = sum(
        float(row[name])
        for row in report.runs
        if row["baseline"].startswith(OURS)
        for name in ("lost", "duplicates", "disorder")
    )
    report.figure("ours: lost, repeated or out of order", defects, "deliveries", at_most(0))


def _defect_columns(row: Row) -> Row:
    return {name: row[name] for name in ("lost", "duplicates", "disorder", "closed")}
