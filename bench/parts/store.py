"""Store: how fast the consumer writes events from the stream to PostgreSQL."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import ResponseError

from bench.figures import Report, at_least, at_most, median_of
from bench.measure import Workload
from bench.parts.common import cpu_text, log
from bench.processes import run, running, wait_for

if TYPE_CHECKING:
    from bench.figures import Row
    from bench.parts.common import Bench
    from bench.processes import Process
    from bench.site import Site

_FLOOD = Workload(clients=0, events=150_000, rate=10_000, jobs=50)
_BACKLOG = Workload(clients=0, events=100_000, jobs=50)
_SECONDS = 180.0


class GroupState(NamedTuple):
    """State of the consumer group: entries read, unread (None: unknown), and not acknowledged."""

    read: int
    lag: int | None
    pending: int

    @property
    def done(self) -> bool:
        """Whether all entries are read and acknowledged."""
        return self.lag == 0 and self.pending == 0


def measure_store(bench: Bench) -> list[Report]:
    how = f"consumer to PostgreSQL, 50 jobs; {bench.repeat} turns, medians"
    report = Report("store", how, _columns)
    for _ in range(bench.repeat):
        report.runs += [_measure_flood(bench), _measure_backlog(bench)]
    for what in ("flood", "backlog"):
        rate = median_of(report.runs, "rate", what=what)
        report.figure(f"{what}, stored", rate, "events/s", at_least(5000))
    missing = sum(float(row["events"] - row["stored"]) for row in report.runs)
    report.figure("not stored", missing, "events", at_most(0))
    return [report]


def _measure_flood(bench: Bench) -> Row:
    """Publish at twice the required rate; measures until the last event is stored."""
    site = bench.site
    with site.new_run() as name, site.instance(name) as (process, _):
        publisher = bench.tools.publisher(("redis", str(site.redis.port), name), _FLOOD)
        clock = _Clock(site, process)
        with running("publisher", publisher, site.log("publisher")):
            _wait_until_stored(site, name, process, _FLOOD.events)
            measured = clock.stop()
        return _row(site, name, {"what": "flood", "published_rate": _FLOOD.rate, **measured})


def _measure_backlog(bench: Bench) -> Row:
    """Publish while no instance runs; measures from the first read."""
    site = bench.site
    with site.new_run() as name:
        run(bench.tools.publisher(("redis", str(site.redis.port), name), _BACKLOG))
        with site.starting_instance(name) as (process, _):
            wait_for(
                "the first entry", lambda: _group_state(site, name).read > 0, _SECONDS, process
            )
            clock = _Clock(site, process)
            _wait_until_stored(site, name, process, _BACKLOG.events)
            measured = clock.stop()
        return _row(site, name, {"what": "backlog", "published_rate": None, **measured})


class _Clock:
    """Measures the elapsed time and the CPU seconds of each process."""

    def __init__(self, site: Site, process: Process) -> None:
        self._processes = (process, site.redis.process, site.postgres.process)
        self._cpu = self._cpu_seconds()
        self._begun = time.monotonic()

    def stop(self) -> Row:
        """Return the elapsed seconds, and the CPU seconds by process."""
        seconds = time.monotonic() - self._begun
        used = zip(self._processes, self._cpu, self._cpu_seconds(), strict=True)
        cpu = {process.name: round(after - before, 2) for process, before, after in used}
        return {"seconds": round(seconds, 3), "cpu": cpu}

    def _cpu_seconds(self) -> list[float]:
        return [process.cpu_seconds() for process in self._processes]


def _wait_until_stored(site: Site, name: str, process: Process, events: int) -> None:
    def all_are_stored() -> bool:
        state = _group_state(site, name)
        return state.read >= events and state.done

    wait_for("the last entry", all_are_stored, _SECONDS, process)


def _group_state(site: Site, stream: str) -> GroupState:
    try:
        groups: Any = site.redis.client.xinfo_groups(stream)
    except ResponseError:
        # The stream does not exist before the first event.
        groups = []
    if not groups:
        return GroupState(0, None, 0)
    (group,) = groups
    return GroupState(group["entries-read"] or 0, group["lag"], group["pending"])


def _row(site: Site, name: str, measured: Row) -> Row:
    stored = int(site.postgres.query(name, "SELECT count(*) FROM events"))
    events: int = site.redis.client.xlen(name)
    rate = stored / measured["seconds"]
    log(f"{measured['what']}: {rate:,.0f} events/s")
    load_average = round(os.getloadavg()[0], 2)
    return {
        **measured,
        "events": events,
        "stored": stored,
        "rate": rate,
        "load_average": load_average,
    }


def _columns(row: Row) -> Row:
    return {
        "what": row["what"],
        "events": row["events"],
        "published/s": row["published_rate"] or "before",
        "stored": row["stored"],
        "seconds": row["seconds"],
        "stored/s": row["rate"],
        "cpu s": cpu_text(row),
        "load": row["load_average"],
    }
