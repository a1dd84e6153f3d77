"""A single measurement: clients of a baseline, published events, deliveries and their cost."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from bench.processes import BenchError, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.baselines import Baseline
    from bench.figures import Row
    from bench.processes import Process

_HERE = Path(__file__).parent
_OPEN_SECONDS = 150.0
_HELLO_SECONDS = 0.2
_MARGIN_SECONDS = 30.0


@dataclass(frozen=True)
class Workload:
    """Parameters of a measurement.

    `rate` is in events per second, 0 for as fast as possible; `seconds` is the timeout.
    """

    clients: int
    events: int
    rate: float = 0
    size: int = 300
    jobs: int = 1
    seconds: float = 60


@dataclass(frozen=True)
class Tools:
    """Paths of the compiled C programs."""

    load: Path
    publish: Path

    @classmethod
    def compile(cls, folder: Path) -> Tools:
        """Compile the programs into the folder."""
        tools = cls(folder / "sse_load", folder / "publish")
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]
        run([*command, str(tools.load), f"{_HERE}/sse_load.c", "-lssl", "-lcrypto"])
        run([*command, str(tools.publish), f"{_HERE}/publish.c"])
        return tools

    def publisher(self, to: Sequence[str], workload: Workload) -> list[str]:
        """Return the command that publishes the workload's events."""
        command = [str(self.publish), *to, "-n", str(workload.events), "-r", str(workload.rate)]
        return [*command, "-s", str(workload.size), "-j", str(workload.jobs)]

    def clients(self, baseline: Baseline, workload: Workload) -> list[str]:
        """Return the command that receives the workload's events from a baseline."""
        command = [str(self.load), *(["-t"] if baseline.tls else [])]
        if baseline.warm_up:
            command += ["-w", baseline.warm_up]
        for header in baseline.headers:
            command += ["-H", header]
        command += [",".join(map(str, baseline.ports)), baseline.path]
        return [*command, str(workload.clients), str(workload.events), str(workload.seconds)]


class Output:
    """Reads the output of a program line by line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""

    def line(self, seconds: float, meanwhile: Callable[[], object] | None = None) -> str:
        """Return the next line; calls `meanwhile` periodically until then.

        Raises:
            BenchError: No line arrives in time.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if meanwhile is not None:
                meanwhile()
            left = deadline - time.monotonic()
            if left <= 0:
                raise BenchError(f"a program of the measurement said nothing for {seconds:g} s")
            wait = left if meanwhile is None else min(left, _HELLO_SECONDS)
            if select.select([self._descriptor], [], [], wait)[0]:
                self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def _read(self) -> None:
        read = os.read(self._descriptor, 65536)
        if not read:
            raise BenchError("a program of the measurement has ended; what it said stands above")
        self._buffer += read


@contextlib.contextmanager
def connected(tools: Tools, baseline: Baseline, workload: Workload) -> Iterator[Output]:
    """Start clients and wait until each has received an event; yield their output."""
    with _started(tools.clients(baseline, workload)) as output, _servers_watched(baseline):
        for word, meanwhile in (("READY", None), ("LIVE", baseline.publish_hello)):
            said = output.line(_OPEN_SECONDS, meanwhile)
            if said != word:
                raise BenchError(f"the clients said {said!r} instead of {word}")
        yield output


def deliver(tools: Tools, baseline: Baseline, workload: Workload, clients: Output) -> Row:
    """Publish to connected clients; return their result and the cost in CPU seconds."""
    before, begun = _cpu_seconds(baseline), time.monotonic()
    with _started(tools.publisher(baseline.publish_to, workload)) as publisher:
        result: Row = json.loads(clients.line(workload.seconds + _MARGIN_SECONDS))
        elapsed, after = time.monotonic() - begun, _cpu_seconds(baseline)
        published: Row = json.loads(publisher.line(_MARGIN_SECONDS))
    cpu = {name: round(after[name] - before[name], 2) for name in after}
    return {
        "baseline": baseline.name,
        "instances": len(baseline.ports),
        "events": workload.events,
        "event_bytes": round(result["bytes"] / max(result["delivered"], 1)),
        **result,
        "published_rate": published["rate"],
        "elapsed_s": round(elapsed, 3),
        "cpu": cpu,
        # CPU utilisation of the baseline's own processes, in cores.
        "server_share": round(sum(cpu[name] for name in _names(baseline.servers)) / elapsed, 3),
        # Near 1, the clients are the bottleneck and not the baseline.
        "clients_share": round(result["cpu_s"] / result["seconds"], 3) if result["seconds"] else 0,
    }


def measure(tools: Tools, baseline: Baseline, workload: Workload) -> Row:
    """Run one measurement; return its row with the load average before it."""
    load_average = round(os.getloadavg()[0], 2)
    with connected(tools, baseline, workload) as clients:
        return {**deliver(tools, baseline, workload, clients), "load_average": load_average}


@contextlib.contextmanager
def _servers_watched(baseline: Baseline) -> Iterator[None]:
    """Raise BenchError if a server has exited: events that it did not send then are not losses."""
    try:
        yield
    finally:
        for process in (*baseline.servers, *baseline.stores):
            process.check()


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[Output]:
    """Run a program for the duration of the block; yield its output."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:  # noqa: S603 - our own programs
        try:
            yield Output(cast("IO[bytes]", child.stdout).fileno())
        finally:
            child.kill()


def _cpu_seconds(baseline: Baseline) -> dict[str, float]:
    """Return the CPU seconds by process name; all instances of the backend share one name."""
    used: defaultdict[str, float] = defaultdict(float)
    for process in (*baseline.servers, *baseline.stores):
        used[process.name] += process.cpu_seconds()
    return used


def _names(processes: Iterable[Process]) -> set[str]:
    return {process.name for process in processes}
