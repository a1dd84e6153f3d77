"""The order in which the instances of two hosts change to a release, and back if it fails."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import run_playbook
from tests.support.role_variables import DEFAULTS
from tests.support.site_playbook import REQUIRED_VARIABLES
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.playbook import Run

HOSTS = ("hx-first", "hx-second")
PORTS = (8002, 8003)
ALL_INSTANCES = [f"{host} {port}" for host in HOSTS for port in PORTS]
# A stub of systemd. $STATE/fails names an instance, and how its new release fails.
SYSTEMCTL = """#!/bin/sh
unit=$2 failure=
test "$1" != show || unit=$4
port=${unit#*@}
port=${port%.service}
test -e "$STATE/control/$unit" && read -r failing failure <"$STATE/fails"
test "$failing" = "$port" || failure=
case $1 in
show)
  test "$2" != ag-ui.target || { printf 'LoadState=loaded\\nActiveState=active\\nId=%s\\n' "$2"; exit; }
  cat "$STATE/invocation-$port" 2>/dev/null
  test "$failure" != dies || echo "$(date +%N)" >"$STATE/invocation-$port"
  ;;
cat) cat "$STATE/systemd/$2" 2>/dev/null ;;
restart)
  release=$(sed -n 's/^# //p' "$STATE/control/$2" 2>/dev/null || sed -n 's/^# //p' "$STATE/systemd/$2")
  test -n "$release" || release=$(sed -n 's/^# //p' "$STATE/systemd/$2")
  echo "$HOST $port $release" >>"$STATE/../restarts"
  echo "$$" >"$STATE/invocation-$port"
  test "$failure" != crashes
  ;;
esac
"""


class Site:
    """Two folders in place of hosts, whose instances run the release `old`."""

    def __init__(self, folder: Path, health_port: int) -> None:
        self.folder = folder
        self.health_port = health_port
        for host in HOSTS:
            for name in ("systemd", "control", "bin", "etc/releases/old", "etc/releases/new"):
                (folder / host / name).mkdir(parents=True)
            program = folder / host / "bin/systemctl"
            program.write_text(SYSTEMCTL)
            program.chmod(0o755)
            (folder / host / "bin/journalctl").write_text("#!/bin/sh\n")
            (folder / host / "bin/journalctl").chmod(0o755)
            (folder / host / "fails").touch()
            unit = folder / host / "etc/releases/new/ag-ui-backend@.service"
            unit.write_text(self.unit("new"))
            for port in PORTS:
                permanent = folder / host / f"systemd/ag-ui-backend@{port}.service"
                permanent.write_text(self.unit("old"))

    def unit(self, release: str) -> str:
        return f"# {release}\ncurl http://127.0.0.1:{self.health_port}/health/ready;\n"

    def fail(self, host: str, port: int, how: str) -> None:
        """Make the new release of an instance fail: `crashes` at its start, or `dies` after it."""
        (self.folder / host / "fails").write_text(f"{port} {how}\n")

    @property
    def restarts(self) -> list[str]:
        """Host, port and release of each start, in order."""
        return (self.folder / "restarts").read_text().splitlines()

    @property
    def permanent(self) -> set[str]:
        """The releases that a reboot would start."""
        units = self.folder.glob("*/systemd/*")
        return {unit.read_text().splitlines()[0].removeprefix("# ") for unit in units}

    @property
    def trials(self) -> list[Path]:
        return list(self.folder.glob("*/control/*"))

    def hook(self, name: str, exit_code: int = 0) -> str:
        """Write a hook that notes how it was called; return its path."""
        program = self.folder / name
        values = '"$AG_UI_RELEASE $AG_UI_FORMER_RELEASE $AG_UI_HOSTS $AG_UI_OUTCOME"'
        program.write_text(
            f"#!/bin/sh\necho {name} {values} >>{self.folder}/hooks\nexit {exit_code}\n"
        )
        program.chmod(0o755)
        return str(program)

    @property
    def hooks(self) -> list[str]:
        path = self.folder / "hooks"
        return path.read_text().splitlines() if path.exists() else []

    def release(self, watch_time: int = 1, **variables: str) -> Run:
        folder = f"{self.folder}/{{{{ inventory_hostname }}}}"
        units = {
            f"ag-ui-backend@{port}.service": {"release": "old", "endpoint": f"127.0.0.1:{port}"}
            for port in PORTS
        }
        enabled = ["multi-user.target.wants/ag-ui.target", "docker.service.wants/ag-ui.target"]
        enabled += [f"ag-ui.target.wants/{unit}" for unit in units]
        state = {
            "units": units,
            "instances": {},
            "running": [],
            "current": "old",
            "enabled": enabled,
        }
        own = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ag_ui_watch_time": watch_time,
            "__ag_ui_release": "new",
            "__ag_ui_image": "backend:new",
            "__ag_ui_started": "",
            "__ag_ui_preflight": state,
            "__ag_ui_config_dir": f"{folder}/etc",
            "__ag_ui_unit_dirs": [f"{folder}/systemd", f"{folder}/control"],
            **variables,
        }
        role = {"name": "ag_ui_deployment", "tasks_from": "release"}
        play = {
            "hosts": "all",
            "gather_facts": False,
            "any_errors_fatal": True,
            "environment": {
                "STATE": folder,
                "HOST": "{{ inventory_hostname }}",
                "PATH": f"{folder}/bin:{os.environ['PATH']}",
            },
            "tasks": [{"name": "Run it", "ansible.builtin.include_role": role}],
        }
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        return run_playbook(
            *("--inventory", ",".join(HOSTS)),
            *("--extra-vars", json.dumps(DEFAULTS | REQUIRED_VARIABLES | own)),
            self.folder / "play.yml",
        )

    def record(self, host: str) -> dict[str, Any]:
        text = (self.folder / host / "etc/releases/new/record.json").read_text()
        return dict(json.loads(text))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "healthy"}')

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Healthy)) as port:
        yield Site(tmp_path, port)


def test_instances_change_one_at_a_time_and_the_release_becomes_permanent(site: Site) -> None:
    run = site.release()
    assert run.code == 0, run.output
    assert sorted(site.restarts) == [f"{instance} new" for instance in ALL_INSTANCES]
    assert site.permanent == {"new"}
    assert site.trials == []


def test_release_that_dies_under_watch_reaches_no_other_instance(site: Site) -> None:
    # Ansible chooses with which host it begins.
    for host in HOSTS:
        site.fail(host, 8002, "dies")
    run = site.release(watch_time=60)
    assert run.code != 0, run.output
    first, *_ = site.restarts[0].split()
    assert site.restarts == [f"{first} 8002 new", f"{first} 8002 old"]
    assert site.permanent == {"old"}
    assert site.trials == []
    assert "ag-ui-backend@8002.service did not stay healthy: it exited" in run.message
    assert "Release new was undone. The site runs release old." in run.message


def test_failure_of_a_later_instance_takes_all_back(site: Site) -> None:
    site.fail("hx-second", 8003, "crashes")
    run = site.release()
    assert run.code != 0, run.output
    started = [line for line in site.restarts if line.endswith("new")]
    assert started[-1] == "hx-second 8003 new"
    back = site.restarts[len(started) :]
    assert sorted(back) == sorted(line.replace("new", "old") for line in started)
    assert site.permanent == {"old"}
    assert site.trials == []
    for host in HOSTS:
        record = site.record(host)
        assert record["outcome"] == "failed"
        assert "ag-ui-backend@8003.service did not become healthy" in record["reason"]
    assert "ag-ui-backend@8003.service did not become healthy" in run.message


def test_hooks_run_once_for_all_hosts(site: Site) -> None:
    site.fail("hx-first", 8002, "crashes")
    run = site.release(
        ag_ui_hook_before_release=site.hook("before"), ag_ui_hook_after_release=site.hook("after")
    )
    assert run.code != 0, run.output
    assert site.hooks == [
        "before new old hx-first hx-second ",
        "after new old hx-first hx-second failed",
    ]


def test_failing_hook_before_the_release_switches_nothing(site: Site) -> None:
    run = site.release(ag_ui_hook_before_release=site.hook("before", exit_code=1))
    assert run.code != 0, run.output
    assert "so nothing was switched. The site goes on with its release" in run.message
    assert not (site.folder / "restarts").exists()
    assert site.permanent == {"old"}
