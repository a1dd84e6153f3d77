"""Render templates of the role on every host of an inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.role_variables import variable_files

if TYPE_CHECKING:
    from collections.abc import Mapping

TOP = Path(__file__).resolve().parents[2]
ROLE = TOP / "roles/ag_ui_deployment"
# Facts that a deployment sets as it runs.
RUNTIME_FACTS: dict[str, Any] = {
    "__ag_ui_preflight": {"nginx": "1.22.1", "ipv6": True},
    "__ag_ui_generated": {"values": {"proxy_key": "p" * 48, "metrics_token": "m" * 48}},
    "__ag_ui_gid": 1001,
    "__ag_ui_image": "shield-ag-ui-backend:0123456789abcdef",
    "__ag_ui_release": "fedcba9876543210",
    "role_path": str(ROLE),
}
SECRETS = {f"ag_ui_{name}": f"{name}-{'x' * 48}" for name in ("jwt_secret", "mfa_key", "audit_key")}


def inventory(
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]], decided: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an inventory that has this machine under many names.

    Args:
        groups: Hosts and their variables, by the group that shares its proxies.
        decided: Variables of all hosts.
    """
    common = yaml.safe_load((ROLE / "defaults/main.yml").read_text()) | dict(decided) | SECRETS
    common |= {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    children = {
        name: {"hosts": dict(hosts), "vars": {"ag_ui_group": name}}
        for name, hosts in groups.items()
    }
    return {"all": {"vars": common, "children": children}}


def render(folder: Path, template: str, hosts: Mapping[str, Any], *extra_variables: str) -> Path:
    """Render a template of the role on all hosts of an inventory.

    Args:
        folder: An empty directory.
        template: The template's file name, or the full path of a template outside the role.
        hosts: The inventory.
        extra_variables: Values of `--extra-vars`, which have the highest precedence.

    Returns:
        The directory, with a file for each host.
    """
    (folder / "hosts.yml").write_text(yaml.safe_dump(dict(hosts)))
    internal = (f"@{path}" for path in variable_files(ROLE))
    extras = (*internal, json.dumps(RUNTIME_FACTS), *extra_variables)
    destination = f"{folder}/{{{{ inventory_hostname }}}}"
    subprocess.run(
        [
            *(Path(sys.executable).parent / "ansible", "all", "--inventory", folder / "hosts.yml"),
            *(word for extra in extras for word in ("--extra-vars", extra)),
            *("--module-name", "ansible.builtin.template"),
            *("--args", f"src={ROLE / 'templates' / template} dest={destination}"),
        ],
        env=os.environ | {"ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
        timeout=120,
    )
    return folder
