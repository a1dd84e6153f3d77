"""Runs the selected benchmarks, prints tables or JSON, and stores the JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.machine import describe_machine, describe_versions
from bench.measure import Tools
from bench.parts.agent import measure_agent
from bench.parts.api import measure_api
from bench.parts.audit import measure_audit
from bench.parts.backup import measure_backup
from bench.parts.common import Bench
from bench.parts.console import measure_console
from bench.parts.full import measure_full_speed
from bench.parts.idle import measure_idle
from bench.parts.paced import measure_paced
from bench.parts.scale import measure_scale
from bench.parts.store import measure_store
from bench.parts.tls import measure_tls
from bench.parts.uploads import measure_uploads
from bench.processes import BenchError
from bench.servers import postgres_server, redis_server
from bench.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.figures import Report, Row

PARTS: dict[str, Callable[[Bench], list[Report]]] = {
    "full": measure_full_speed,
    "paced": measure_paced,
    "idle": measure_idle,
    "store": measure_store,
    "tls": measure_tls,
    "scale": measure_scale,
    "api": measure_api,
    "agent": measure_agent,
    "audit": measure_audit,
    "backup": measure_backup,
    "console": measure_console,
    "uploads": measure_uploads,
}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if every limit holds, 1 if one is missed or the measurement failed."""
    options = _parser().parse_args(arguments)
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        result, reports = _measure(options)
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted\n")
        return _INTERRUPTED
    _keep(result, options)
    missed = [figure.name for report in reports for figure in report.figures if figure.missed]
    if missed:
        sys.stderr.write(f"bench: missed: {'; '.join(missed)}\n")
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--results", type=Path, default=Path(".cache/bench"))
    return parser


def _interrupt(*_: object) -> None:
    """Abort by KeyboardInterrupt, so that everything that was started is stopped.

    Ignore further signals.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _measure(options: argparse.Namespace) -> tuple[Row, list[Report]]:
    reports: list[Report] = []
    with _bench(options) as bench:
        machine, versions = describe_machine(), describe_versions(bench.site)
        _print(
            options, "".join(f"{key}: {value}\n" for key, value in {**machine, **versions}.items())
        )
        for part in options.parts:
            sys.stderr.write(f"{part}\n")
            for report in PARTS[part](bench):
                reports.append(report)
                _print(options, f"\n{report.as_text()}")
    result = {
        "machine": machine,
        "versions": versions,
        "options": {name: getattr(options, name) for name in ("parts", "repeat", "seconds")},
        "reports": [report.as_json() for report in reports],
    }
    return result, reports


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    """Start the servers that the parts share, in a temporary folder.

    The folder is on disk, since /tmp may be in memory, and PostgreSQL, which may run as another
    user, can enter it.
    """
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
    with (
        tempfile.TemporaryDirectory(prefix="ag-ui-bench-", dir="/var/tmp") as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        folder.chmod(0o711)
        stack.push(partial(_keep_logs, folder, options.results / "logs"))
        tools = Tools.compile(folder)
        redis = stack.enter_context(redis_server(folder))
        postgres = stack.enter_context(postgres_server(folder))
        site = Site(folder, redis, postgres)
        site.prepare()
        yield Bench(site, tools, options.repeat, options.seconds)


def _keep_logs(folder: Path, kept: Path, _: object, error: object, __: object) -> None:
    """Keep the servers' logs if the measurement has failed."""
    if not isinstance(error, BenchError):
        return
    kept.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        shutil.copyfile(log, kept / log.name)
    sys.stderr.write(f"bench: the logs of the servers are in {kept}\n")


def _print(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        sys.stdout.write(text)
        sys.stdout.flush()


def _keep(result: Row, options: argparse.Namespace) -> None:
    text = json.dumps(result, indent=2) + "\n"
    options.results.mkdir(parents=True, exist_ok=True)
    kept = options.results / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    kept.write_text(text)
    sys.stdout.write(text if options.json else f"\nAs JSON: {kept}\n")


if __name__ == "__main__":
    sys.exit(main())
