"""script/bench refuses wrong arguments and computes its figures correctly."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

import pytest

from bench.__main__ import PARTS
from bench.figures import Figure, Report, at_least, at_most, format_value, median_of, ratio, table
from bench.measure import Output
from bench.processes import BenchError, free_port, listens, run, running, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Row
    from tests.scripts.conftest import Checkout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        [""],
        ["full", "nonsense"],
        ["full paced"],
        ["--repeat"],
        ["--repeat", "0"],
        ["--repeat", "many"],
        ["--seconds", "-1"],
        ["--seconds", "1.5", "full"],
    ],
)
def test_invalid_argument_exits_with_usage(checkout: Checkout, arguments: list[str]) -> None:
    done = checkout.run("script/bench", *arguments)
    assert done.returncode == 2
    assert "  script/bench " in done.stderr
    assert not done.stdout
    assert not (checkout.path / ".cache").exists()


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_names_every_part(checkout: Checkout, argument: str) -> None:
    done = checkout.run("script/bench", argument)
    assert done.returncode == 0
    assert f"some of: {' '.join(PARTS)}\n" in done.stdout
    assert not done.stderr


def test_arguments_are_passed_to_python(checkout: Checkout) -> None:
    checkout.replace_script("bootstrap", 'test "$*" = bench')
    python = checkout.path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    chosen = checkout.run("script/bench", "--json", "--repeat", "2", "idle", "full")
    assert chosen.stdout == "-m bench --json --repeat 2 idle full\n"
    everything = checkout.run("script/bench", "--seconds", "5")
    assert everything.stdout == f"-m bench --seconds 5 {' '.join(PARTS)}\n"


# --- figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value", "missed"),
    [
        (at_least(40), 40, False),
        (at_least(40), 39.99, True),
        (at_most(2), 2, False),
        (at_most(2), 2.01, True),
        (None, 1e9, False),
    ],
)
def test_figure_misses_its_limit_only_beyond_it(
    limit: object, value: float, *, missed: bool
) -> None:
    figure = Figure("speed", value, "times", limit)  # type: ignore[arg-type]
    assert figure.missed is missed
    assert figure.as_json()["missed"] is missed


def test_median_of_selected_rows() -> None:
    rows: list[Row] = [{"who": "a", "rate": rate} for rate in (5, 1, 3)]
    rows.append({"who": "b", "rate": 100})
    assert median_of(rows, "rate", who="a") == 3
    assert median_of(rows, "rate") == 4


def test_ratio_to_zero_is_infinite() -> None:
    assert ratio(6, 3) == 2
    assert ratio(6, 0) == float("inf")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("ours", "ours"),
        (0.123, "0.12"),
        (99.994, "99.99"),
        (1_400_000.4, "1,400,000"),
        (7, "7"),
    ],
)
def test_values_are_formatted_with_sensible_decimals(value: object, text: str) -> None:
    assert format_value(value) == text


def test_table_aligns_columns() -> None:
    text = table([{"who": "ours", "rate": 1234.5}, {"who": "a longer name", "rate": None}])
    assert text.splitlines() == [
        "who             rate",
        "ours           1,234",
        "a longer name      -",
    ]


def test_report_marks_missed_limits() -> None:
    report = Report("full", "once", lambda run: {"who": run["who"]}, [{"who": "ours", "more": 1}])
    report.figure("fast", 50, "times", at_least(40))
    report.figure("slow", 3, "times", at_most(2))
    text = report.as_text()
    assert [line.split()[-1] for line in text.splitlines()[-2:]] == ["ok", "MISSED"]
    assert "more" not in text
    assert report.as_json()["runs"] == [{"who": "ours", "more": 1}]


# --- processes ---------------------------------------------------------------------------------

_BUSY = "import os, time\nwhile time.process_time() < 0.2: pass\n"


def test_cpu_memory_and_stop_include_child_processes(tmp_path: Path) -> None:
    port = free_port()
    program = (
        f"import socket, subprocess, sys\nsubprocess.run([sys.executable, '-c', {_BUSY!r}])\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        f"listener = socket.create_server(('127.0.0.1', {port}))\n"
        "while True: listener.accept()\n"
    )
    with running("server", [sys.executable, "-c", program], tmp_path / "log") as process:
        wait_for("the server", lambda: listens(port), 20, process)
        assert process.cpu_seconds() >= 0.2
        rss, pss = process.memory()
        assert rss > 10_000
        assert pss is None or 0 < pss <= rss
        child = os.pidfd_open(int((tmp_path / "log").read_text()))
    assert process.child.returncode is not None
    assert not listens(port)
    # The pidfd becomes readable when the process has exited.
    assert select.select([child], [], [], 20)[0]
    os.close(child)


def test_waiting_for_an_exited_server_raises_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('the port is taken')"]
    with (
        running("server", command, tmp_path / "log") as process,
        pytest.raises(BenchError, match="the port is taken"),
    ):
        wait_for("the server", lambda: False, 20, process)


def test_failed_program_raises_its_error_output() -> None:
    assert run(["cat"], text="some text") == "some text"
    with pytest.raises(BenchError, match="no such option"):
        run(["sh", "-c", "echo no such option >&2; exit 3"])


def test_output_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "said"
    path.write_text("READY\nLIVE\nrest")
    with path.open("rb") as file:
        output = Output(file.fileno())
        assert [output.line(5), output.line(5)] == ["READY", "LIVE"]
        with pytest.raises(BenchError, match="has ended"):
            output.line(5)
