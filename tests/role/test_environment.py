"""What the role writes for the backend to read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.role.playing import DECIDED, TOP

ROLE = TOP / "roles/ag_ui_deployment"
SECRETS = {f"ag_ui_{name}": f"{name}-{'x' * 48}" for name in ("jwt_secret", "mfa_key", "audit_key")}


def environment(folder: Path, hosts: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Settings of the first host, as the template gives them for a group of these."""
    common = yaml.safe_load((ROLE / "defaults/main.yml").read_text()) | DECIDED | SECRETS
    common |= {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = {"ag_ui": {"hosts": hosts, "vars": common}}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    written = folder / "backend.env"
    subprocess.run(
        [
            *(Path(sys.executable).parent / "ansible", next(iter(hosts))),
            *("--inventory", folder / "hosts.yml", "--extra-vars", f"@{ROLE}/vars/main.yml"),
            *("--module-name", "ansible.builtin.template"),
            *("--args", f"src={ROLE}/templates/backend.env.j2 dest={written}"),
        ],
        env=os.environ | {"ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    lines = [line for line in written.read_text().splitlines() if not line.startswith("#")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("hosts", "proxies"),
    [
        ({"one": {}}, "127.0.0.1"),
        ({"one": {"ag_ui_bind_address": "192.0.2.1"}}, "127.0.0.1,192.0.2.1"),
        (
            {
                "one": {"ag_ui_bind_address": "192.0.2.1"},
                "other": {"ag_ui_bind_address": "192.0.2.2", "ag_ui_backend_ports": [8002, 8004]},
                "apart": {},
            },
            "127.0.0.1,192.0.2.1,192.0.2.2",
        ),
        ({"one": {"ag_ui_trusted_proxies": ["192.0.2.0/24"]}}, "127.0.0.1,192.0.2.0/24"),
    ],
    ids=["one host", "not on loopback", "a group", "further ones"],
)
def test_the_proxies_of_the_group_are_believed(
    tmp_path: Path, hosts: dict[str, dict[str, Any]], proxies: str
) -> None:
    assert environment(tmp_path, hosts)["TRUSTED_PROXIES"] == proxies
