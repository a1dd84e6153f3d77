"""A dry run gets through on a host that has the packages and no deployment."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.role.playing import DECIDED
from tests.support.nginx import free_port, version
from tests.support.playbook import TOP, run_playbook
from tests.support.proxy_host import ProxyHost

if TYPE_CHECKING:
    from pathlib import Path

ROLE = TOP / "roles/ag_ui_deployment"
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
# A host without units of the role, and an engine without images.
SYSTEMCTL = """#!/bin/sh
case $* in
show*ag-ui*) printf 'LoadState=not-found\\nActiveState=inactive\\nId=ag-ui.target\\n' ;;
show*) printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\nId=other\\n' ;;
is-active*) ;;
is-enabled*ag-ui*) echo not-found; exit 4 ;;
is-enabled*) echo enabled ;;
list-unit-files*) exit 1 ;;
*) echo "a dry run calls systemctl $*" >&2; exit 1 ;;
esac
"""
DOCKER = """#!/bin/sh
case "$1 $2" in "image inspect") exit 1 ;; "image ls") ;; *) exit 2 ;; esac
"""


@pytest.fixture
def host(tmp_path: Path) -> ProxyHost:
    host = ProxyHost(tmp_path)
    for name, text in {"systemctl": SYSTEMCTL, "docker": DOCKER}.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return host


def steps() -> list[str]:
    """The files of tasks of a deployment after it has looked at the host."""
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    named = [task.get("ansible.builtin.import_tasks", "").removesuffix(".yml") for task in tasks]
    return ["preflight_secrets", *named[named.index("preflight") + 1 : named.index("verify")]]


def test_a_host_without_a_deployment(host: ProxyHost) -> None:
    """With the group, the units, the directories and the image that only a deployment makes."""
    folder = host.folder
    before = host.files()
    roles = [{"name": "ag_ui_deployment", "tasks_from": name} for name in steps()]
    tasks = [{"name": "Run it", "ansible.builtin.include_role": role} for role in roles]
    facts = {"gather_facts": True, "gather_subset": ["!all", "network"]}
    play = {"hosts": "all", **facts, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    found: dict[str, Any] = {
        "ipv6": False,
        "engine": True,
        "missing": [],
        "nginx": version(),
        "certificate": [],
        "enabled": [],
        "images": [],
        "instances": {},
        "units": {},
        "releases": [],
        "current": "",
    }
    own = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ag_ui_image_source": "registry",
        "ag_ui_image": "registry.example/backend:1",
        "ag_ui_https_port": free_port(),
        "ag_ui_http_port": free_port(),
        "__ag_ui_preflight": found,
        "__ag_ui_account": "ag-ui-not-made",
        "__ag_ui_config_dir": str(folder / "etc"),
        "__ag_ui_state_dir": str(folder / "state"),
        "__ag_ui_proxy_nginx": str(folder),
        "__ag_ui_proxy_logs": str(folder / "logs"),
    }
    variables = DEFAULTS | DECIDED | own
    # As the validation leaves them: to convert them again for each task takes most of the time.
    typed = {name: value for name, value in variables.items() if not isinstance(value, str)}
    run = run_playbook(
        *("--check", "--inventory", "hx-dev-server,"),
        *("--extra-vars", json.dumps(variables | {"__ag_ui_typed": typed})),
        folder / "play.yml",
        environment=host.environment,
        timeout=280,
    )
    assert run.code == 0, run.output
    assert "ag_ui_deployment : Release | Say what a deployment would change" in run.tasks
    assert host.files() == before
    assert not (folder / "etc").exists()
