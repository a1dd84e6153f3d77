"""Run a deployment in check mode on a host that has the packages and no deployment."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.nginx import free_port, version
from tests.support.playbook import TOP, run_playbook
from tests.support.proxy_host import ProxyHost
from tests.support.role_variables import DEFAULTS
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.playbook import Run

ROLE = TOP / "roles/ag_ui_deployment"
# A host without units of the role, and a container engine without images.
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


class BareHost(ProxyHost):
    """A host with the packages but without a deployment's group, units, directories and image."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._add_program("systemctl", SYSTEMCTL)
        self._add_program("docker", DOCKER)


def steps() -> list[str]:
    """Return the task files of a deployment that follow the preflight."""
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    [block] = [task["block"] for task in tasks if "block" in task]
    imported = [task.get("ansible.builtin.import_tasks", "") for task in block]
    named = [file.removesuffix(".yml") for file in imported if file]
    named.remove("proxy_record")
    return ["preflight_secrets", *named[named.index("preflight") + 1 : named.index("verify")]]


def dry_run(
    host: BareHost, role: str, *first: str, environment: Mapping[str, str] | None = None
) -> Run:
    """Run the steps of a deployment in check mode.

    Args:
        host: The host.
        role: The name of the role.
        first: Task files to run before the steps.
        environment: Environment variables for Ansible in addition to those of the host.
    """
    folder = host.folder
    roles = [{"name": role, "tasks_from": name} for name in (*first, *steps())]
    tasks = [{"name": "Run it", "ansible.builtin.include_role": included} for included in roles]
    facts = {"gather_facts": True, "gather_subset": ["!all", "network"]}
    play = {"hosts": "all", **facts, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    found: dict[str, Any] = {
        "ipv6": False,
        "engine": True,
        "gid": None,
        "administrator": False,
        "running": [],
        "existing": [],
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
    variables = DEFAULTS | REQUIRED_VARIABLES | own
    # Pass converted values, as the validation does: converting them for each task takes most of the
    # time.
    typed = {name: value for name, value in variables.items() if not isinstance(value, str)}
    return run_playbook(
        *("--check", "--inventory", "hx-dev-server,"),
        *("--extra-vars", json.dumps(variables | {"__ag_ui_typed": typed})),
        folder / "play.yml",
        environment={**host.environment, **(environment or {})},
        timeout=280,
    )
