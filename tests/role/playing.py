"""Run site.yml against this machine, in check mode, to see what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

TOP = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in TOP.glob("roles/*/meta/argument_specs.yml"))

# What a site has to decide. Nothing listens on port 1.
DECIDED: dict[str, Any] = {
    "ag_ui_redis_host": "127.0.0.1",
    "ag_ui_redis_port": 1,
    "ag_ui_database_host": "127.0.0.1",
    "ag_ui_database_port": 1,
    "ag_ui_database_password": "a-database-password",
    "ag_ui_admin_email": "admin@example.com",
}
DATASTORES: dict[str, Any] = {
    "shield_datastores_redis_password": "a-password-for-redis",
    "shield_datastores_database_owner_password": "a-password-for-the-owner",
    "shield_datastores_database_password": "a-password-for-postgresql",
    "shield_datastores_allowed_networks": ["127.0.0.0/8"],
}


@dataclass(frozen=True)
class Play:
    """What a run of the playbook did."""

    code: int
    output: str
    tasks: list[str]
    changed: int

    @property
    def message(self) -> str:
        """What was printed, without the wrapping."""
        return re.sub(r"\s+", " ", self.output)


def inventory(folder: Path, variables: dict[str, Any], datastores: dict[str, Any] | None) -> Path:
    """Describe this machine as the server."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups: dict[str, Any] = {"ag_ui": {"hosts": {"hx-dev-server": local | variables}}}
    if datastores is not None:
        groups["shield_datastores"] = {"hosts": {"hx-sqldb-server": local | datastores}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": groups}}), encoding="utf-8")
    return path


def play(folder: Path, variables: dict[str, Any], datastores: dict[str, Any] | None = None) -> Play:
    """Run site.yml; `--check` keeps a run that is not refused from changing this machine."""
    tools = Path(sys.executable).parent
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_BECOME_ALLOW_SAME_USER": "false",
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    arguments = ["--check", "--inventory", str(inventory(folder, variables, datastores))]
    extra = json.dumps({"ansible_become": False})
    done = subprocess.run(
        ["ansible-playbook", *arguments, "--extra-vars", extra, "site.yml"],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    output = done.stdout + done.stderr
    return Play(
        code=done.returncode,
        output=output,
        tasks=re.findall(r"^TASK \[(.*?)\] \**$", output, flags=re.MULTILINE),
        changed=sum(map(int, re.findall(r"changed=(\d+)", output))),
    )
