"""An instance switches to a release, or back to the previous one."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNIT = "ag-ui-backend@8002.service"
SCHEMA = "the database schema is not this release's"
# A stub of systemd: it prefers the unit under trial, and a unit's text determines how its instance
# behaves. Of one that is `recovered`, the unit of OnFailure= has taken the instance back after a failure.
SYSTEMCTL = """#!/bin/sh
case $1 in
show)
  cat "$STATE/invocation" 2>/dev/null
  grep -qs draining "$STATE/running" && touch "$STATE/seen"
  ;;
cat) test -e "$KEPT/$2" || exit 1; echo "# $KEPT/$2"; cat "$KEPT/$2" ;;
stop) rm -f "$STATE/running" ;;
is-failed) exit 1 ;;
is-active) test -e "$STATE/running" && ! grep -q 'never-ready' "$STATE/running" ;;
restart)
  if grep -qs drains "$KEPT/$2"; then
    echo draining >"$STATE/running"
    while test ! -e "$STATE/seen"; do sleep 0.05; done
  fi
  echo "$$" >"$STATE/invocation"
  for unit in "$TRIED/$2" "$KEPT/$2"; do test -e "$unit" && break; done
  cp "$unit" "$STATE/running"
  release=$(head -n 1 "$unit")
  case $release in *recovered*) rm "$unit"; cp "$KEPT/$2" "$STATE/running" ;; esac
  case $release in *crashes*) exit 1 ;; *never-ready*) ;; *) exit 0 ;; esac
  while test ! -e "$STATE/asked"; do sleep 0.05; done
  exit 1
  ;;
esac
"""
JOURNAL = [
    '{"event": "backend_started", "level": "info"}',
    '{"event": "pool_failed", "level": "error", "exception": "Traceback\\n  line\\nOSError: no route"}',
    '{"event": "request", "level": "info", "path": "/health/ready"}',
]


class Host:
    """A directory in place of the host, and a server in place of the instance."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        for name in ("kept", "tried", "state", "bin", "release"):
            (root / name).mkdir()
        self.add_program("systemctl", SYSTEMCTL)
        self.log(JOURNAL)

    def add_program(self, name: str, text: str) -> None:
        program = self.root / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def log(self, lines: list[str]) -> None:
        (self.root / "journal").write_text("\n".join(lines))
        self.add_program("journalctl", f"#!/bin/sh\ncat {self.root}/journal\n")

    def unit_text(self, name: str) -> str:
        return f"# {name}\nExecStartPost=curl http://127.0.0.1:{self.port}/health/ready; done\n"

    def keep(self, name: str) -> None:
        (self.root / "kept" / UNIT).write_text(self.unit_text(name))

    def text(self, name: str) -> str:
        path = self.root / name
        return path.read_text() if path.exists() else ""

    @property
    def kept(self) -> str:
        return self.text(f"kept/{UNIT}")

    @property
    def running(self) -> str:
        return self.text("state/running")

    def start_trial(self, name: str) -> dict[str, Any]:
        """Start a release on trial; return the result of the module."""
        source = self.root / "release/unit"
        source.write_text(self.unit_text(name))
        return self.run(
            "ag_ui_instance",
            {"unit": UNIT, "source": str(source), "state": "trial", "healthy_within": 1},
        )

    def roll_back(self) -> dict[str, Any]:
        return self.run("ag_ui_instance", {"unit": UNIT, "state": "rolled_back"})

    def commit(self) -> dict[str, Any]:
        """Make the release permanent that was started on trial."""
        options = {"unit": UNIT, "source": str(self.root / "release/unit"), "state": "committed"}
        return self.run("ag_ui_instance", options)

    def watch(self, trial: dict[str, Any], seconds: float) -> dict[str, Any]:
        started = {name: trial[name] for name in ("start_id", "started_at")}
        instances = [{"unit": UNIT} | started]
        return self.run("ag_ui_instance_watch", {"instances": instances, "seconds": seconds})

    def run(self, module: str, options: dict[str, Any]) -> dict[str, Any]:
        """Run a module of the collection; return its result."""
        folders = {"directory": f"{self.root}/kept", "trial_directory": f"{self.root}/tried"}
        return run_module(
            module,
            options | folders,
            self.root,
            {
                "KEPT": f"{self.root}/kept",
                "TRIED": f"{self.root}/tried",
                "STATE": f"{self.root}/state",
                "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            },
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running = instance.running
            status, body = 200, {"status": "healthy"}
            if "never-ready" in running:
                status, body = 503, {"detail": SCHEMA}
                (tmp_path / "state/asked").touch()
            elif "draining" in running:
                status, body = 503, {"detail": "draining: this instance is being stopped"}
                (tmp_path / "state/seen").touch()
            elif "degraded" in running and self.path == "/health":
                checks = {"redis": {"status": "down", "detail": "cannot be reached"}}
                body = {"status": "degraded", "checks": checks}  # type: ignore[dict-item]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Answering)) as port:
        instance = Host(tmp_path, port)
        yield instance


def test_reboot_during_a_trial_starts_the_previous_release(host: Host) -> None:
    host.keep("old")
    answer = host.start_trial("new")
    assert answer["changed"], answer
    assert host.running.startswith(host.unit_text("new"))
    assert host.kept == host.unit_text("old")


def test_systemd_does_not_restart_a_release_that_fails_under_trial(host: Host) -> None:
    host.keep("old")
    host.start_trial("new")
    settings = host.running.removeprefix(host.unit_text("new")).splitlines()
    assert {"OnFailure=ag-ui-recover@%i.service", "Restart=on-success"} <= set(settings)


def test_committed_release_is_permanent_and_keeps_running(host: Host) -> None:
    host.keep("old")
    started = host.start_trial("new")["start_id"]
    assert host.commit()["changed"]
    assert host.kept == host.unit_text("new")
    assert host.running.startswith(host.kept)
    assert list((host.root / "tried").iterdir()) == []
    assert host.text("state/invocation").strip() == started
    assert not host.commit()["changed"]


def test_release_that_failed_after_its_watch_is_started_again_when_it_becomes_permanent(
    host: Host,
) -> None:
    host.keep("old")
    host.start_trial("new")
    (host.root / "tried" / UNIT).unlink()
    (host.root / "state/running").write_text(host.unit_text("old"))
    assert host.commit()["changed"]
    assert host.kept == host.running == host.unit_text("new")


def test_rolled_back_release_is_gone(host: Host) -> None:
    host.keep("old")
    host.start_trial("new")
    assert "runs its previous release again" in host.roll_back()["result"]
    assert host.kept == host.running == host.unit_text("old")
    assert list((host.root / "tried").iterdir()) == []
    assert not host.roll_back()["changed"]


def test_instance_that_keeps_running_passes_its_watch(host: Host) -> None:
    answer = host.watch(host.start_trial("new"), 1)
    assert not answer.get("failed"), answer
    assert not answer["changed"]


def test_instance_that_dies_fails_its_watch_with_its_last_error(host: Host) -> None:
    trial = host.start_trial("new")
    # systemd has started it again.
    (host.root / "state/invocation").write_text("another")
    answer = host.watch(trial, 60)
    assert answer["failed"]
    assert answer["msg"].splitlines() == [
        f"{UNIT} did not stay healthy: it exited 0 s after it was healthy",
        "Its last error: pool_failed: OSError: no route",
    ]


def test_instance_that_was_taken_back_fails_its_watch(host: Host) -> None:
    """Also if it runs its previous release since before the watch."""
    trial = host.start_trial("new")
    (host.root / "tried" / UNIT).unlink()
    assert "did not stay healthy: it exited" in host.watch(trial, 0)["msg"]


def test_instance_that_is_not_healthy_at_the_end_fails_its_watch(host: Host) -> None:
    trial = host.start_trial("new")
    (host.root / "state/running").write_text("degraded")
    assert "redis: cannot be reached" in host.watch(trial, 0)["msg"]


@pytest.mark.parametrize(
    ("release", "reason"),
    [("never-ready", SCHEMA), ("degraded", "redis: cannot be reached")],
)
def test_failed_release_is_rolled_back(host: Host, release: str, reason: str) -> None:
    host.keep("old")
    answer = host.start_trial(release)
    assert answer["msg"].splitlines() == [
        f"{UNIT} did not become healthy: {reason}",
        "Its last error: pool_failed: OSError: no route",
        "The instance runs its previous release again.",
    ]
    assert host.kept == host.running == host.unit_text("old")
    assert list((host.root / "tried").iterdir()) == []


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("crashes, recovered", "it exited, or http"),
        ("recovered", "it exited before it was healthy"),
    ],
)
def test_failed_release_may_have_been_taken_back_already(
    host: Host, release: str, reason: str
) -> None:
    host.keep("old")
    answer = host.start_trial(release)
    first, _, last = answer["msg"].splitlines()
    assert f"{UNIT} did not become healthy: {reason}" in first
    assert last == "The instance runs its previous release again."
    assert host.running == host.unit_text("old")


def test_log_of_the_stopping_former_instance_is_not_the_reason(host: Host) -> None:
    host.keep("drains")
    (host.root / "state/invocation").write_text("former")
    (host.root / "state/running").write_text(host.unit_text("drains"))
    answer = host.start_trial("crashes")
    assert "it exited, or http" in answer["reason"]


def test_failed_instance_without_former_release_is_stopped(host: Host) -> None:
    answer = host.start_trial("never-ready")
    assert "The instance is stopped" in answer["msg"]
    assert host.running == ""
    assert host.kept == ""


def test_failed_instance_whose_release_is_permanent_is_left_to_systemd(host: Host) -> None:
    """The cause may be outside this host, so systemd restarts it until it is gone."""
    host.keep("never-ready")
    answer = host.start_trial("never-ready")
    assert "Its previous release does not start either" in answer["msg"]
    assert host.running == host.kept == host.unit_text("never-ready")


def test_ready_release_is_not_stopped_while_degraded(host: Host) -> None:
    host.keep("degraded")
    answer = host.start_trial("degraded")
    assert "keeps running" in answer["msg"]
    assert host.running.startswith(host.unit_text("degraded"))


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        ([], "it logged none"),
        (['{"event": "request", "level": "info"}'], "it logged none"),
        (["docker: no such image."], "docker: no such image."),
        (
            [*JOURNAL, "Traceback:", "", "ImportError: no module"],
            "Traceback:\nImportError: no module",
        ),
        ([*JOURNAL, "plain", JOURNAL[0]], "plain"),
        # What `docker stop` prints as it stops the previous release.
        ([*JOURNAL, "ag-ui-backend-8002"], "pool_failed: OSError: no route"),
        (
            [
                '{"event": "Traceback:\\n  x\\nRuntimeError: no key", "level": "error"}',
                '{"event": "Application startup failed.", "level": "error"}',
                '{"event": "Finished", "level": "info"}',
            ],
            "RuntimeError: no key\nApplication startup failed.",
        ),
    ],
)
def test_last_error_is_found_in_the_log(host: Host, lines: list[str], last: str) -> None:
    host.keep("old")
    host.log(lines)
    assert f"Its last error: {last}\nThe instance" in host.start_trial("degraded")["msg"]
