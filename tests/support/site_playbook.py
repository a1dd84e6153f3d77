"""Run site.yml against this machine in check mode, to test what it refuses."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP, run_playbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

ROLES = sorted(path.parent.parent for path in TOP.glob("roles/*/meta/argument_specs.yml"))

# Variables that every site must set. Nothing listens on port 1.
REQUIRED_VARIABLES: dict[str, Any] = {
    "ag_ui_redis_host": "127.0.0.1",
    "ag_ui_redis_port": 1,
    "ag_ui_database_host": "127.0.0.1",
    "ag_ui_database_port": 1,
    "ag_ui_database_password": "a-database-password",
    "ag_ui_admin_email": "admin@example.com",
}
DATASTORE_VARIABLES: dict[str, Any] = {
    "shield_datastores_redis_password": "a-password-for-redis",
    "shield_datastores_database_owner_password": "a-password-for-the-owner",
    "shield_datastores_database_password": "a-password-for-postgresql",
    "shield_datastores_allowed_networks": ["127.0.0.0/8"],
}


def inventory(folder: Path, variables: dict[str, Any], datastores: dict[str, Any] | None) -> Path:
    """Write an inventory with this machine as the server; return its path."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups: dict[str, Any] = {"ag_ui": {"hosts": {"hx-dev-server": local | variables}}}
    if datastores is not None:
        groups["shield_datastores"] = {"hosts": {"hx-sqldb-server": local | datastores}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": groups}}), encoding="utf-8")
    return path


def play(folder: Path, variables: dict[str, Any], datastores: dict[str, Any] | None = None) -> Run:
    """Run site.yml; `--check` prevents changes to this machine if the run is not refused."""
    hosts = inventory(folder, variables, datastores)
    return run_playbook(
        *("--check", "--inventory", hosts, "--extra-vars", json.dumps({"ansible_become": False})),
        "site.yml",
        environment={"ANSIBLE_BECOME_ALLOW_SAME_USER": "false"},
    )
