"""Redis and PostgreSQL run with their written configuration, whichever run of the role wrote it."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP, run_playbook
from tests.support.site_playbook import DATASTORE_VARIABLES, ROLES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

ROLE = TOP / "roles/shield_datastores"
# Stubs of systemctl and psql that report start and load times and record their calls.
SYSTEMCTL = """#!/bin/sh
case $* in
  *InactiveExitTimestamp*) cat {folder}/started ;;
  show*) printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\nId=a\\n' ;;
  restart*|reload*) echo "$*" >>{folder}/done ;;
esac
"""
RUNUSER = """#!/bin/sh
case $* in
  *pg_hba_file_rules*) grep -q 300 {folder}/pg_hba.conf && echo 'wrong: line 3: invalid IP address "300.0.0.1"'; true ;;
  *pg_conf_load_time*) cat {folder}/loaded ;;
esac
"""
EARLIER = timedelta(hours=-1)
LATER = timedelta(hours=1)


class Host:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.access = folder / "pg_hba.conf"
        self.access.write_text("local all all peer\n")
        (folder / "shield.conf").write_text("port = 5432\n")
        (folder / "bin").mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("runuser", RUNUSER)):
            (folder / "bin" / name).write_text(text.format(folder=folder))
            (folder / "bin" / name).chmod(0o755)

    def since(self, name: str, offset: timedelta) -> None:
        """Set when a service was started or has loaded its files, relative to now."""
        moment = datetime.now(UTC) + offset
        form = "%a %Y-%m-%d %H:%M:%S.%f UTC" if name == "started" else "%Y-%m-%d %H:%M:%S.%f+00"
        (self.folder / name).write_text(moment.strftime(form) + "\n")

    def run(self, tasks: str, **variables: Any) -> Run:
        task = {"name": tasks, "ansible.builtin.include_role": {}}
        task["ansible.builtin.include_role"] = {"name": "shield_datastores", "tasks_from": tasks}
        play = {"hosts": "all", "gather_facts": False, "tasks": [task]}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        own = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "__shield_datastores_cluster": "15/main",
            "__shield_datastores_access": str(self.access),
            "__shield_datastores_unit": "redis-server.service",
            "__shield_datastores_files": [str(self.folder / "shield.conf")],
        }
        defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
        return run_playbook(
            *("--inventory", "a,", self.folder / "play.yml"),
            *("--extra-vars", json.dumps(defaults | DATASTORE_VARIABLES | own | variables)),
            environment={"PATH": f"{self.folder}/bin:{os.environ['PATH']}"},
        )

    def done(self) -> list[str]:
        path = self.folder / "done"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_service_is_restarted_while_a_file_is_newer(host: Host) -> None:
    host.since("started", EARLIER)
    run = host.run("restart")
    assert run.code == 0, run.output
    assert host.done() == ["restart redis-server.service"]
    host.since("started", LATER)
    run = host.run("restart")
    assert (run.code, run.changes) == (0, {"a": 0}), run.output
    assert host.done() == []


def test_postgresql_is_reloaded_while_its_access_list_is_newer(host: Host) -> None:
    host.since("loaded", LATER)
    run = host.run("postgresql_networks")
    assert run.code == 0, run.output
    assert "host shield shield_owner,shield 127.0.0.0/8 scram-sha-256" in host.access.read_text()
    # The previous run ended before the reload.
    host.since("loaded", EARLIER)
    host.done()
    run = host.run("postgresql_networks")
    assert (run.code, run.changes) == (0, {"a": 1}), run.output
    assert host.done() == ["reload postgresql@15-main.service"]


def test_networks_that_postgresql_rejects_are_rolled_back(host: Host) -> None:
    before = host.access.read_text()
    host.since("loaded", EARLIER)
    run = host.run("postgresql_networks", shield_datastores_allowed_networks=["300.0.0.1/8"])
    assert run.code != 0
    assert 'invalid IP address "300.0.0.1"' in run.message
    assert "Correct shield_datastores_allowed_networks" in run.message
    assert host.access.read_text() == before
    assert host.done() == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_roles_have_no_handlers(role: Path) -> None:
    """A handler that failed or did not run is not notified again by a task that changes nothing."""
    texts = {path: path.read_text() for path in role.glob("tasks/*.yml")}
    assert [path.name for path, text in texts.items() if "notify:" in text] == []
    assert list(role.glob("handlers/*")) == []
