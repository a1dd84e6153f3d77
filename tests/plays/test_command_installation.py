"""The role installs the command ag-ui with all that it imports, and removes what an earlier version left."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support.role_tasks import run_role_tasks
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run


def install(folder: Path, *arguments: str, tasks: str = "command", **changes: Any) -> Run:
    """Run the tasks of the command, with a folder in place of the host."""
    own = {
        "__ag_ui_config_dir": str(folder / "etc"),
        "__ag_ui_state_dir": str(folder / "state"),
        "__ag_ui_command": str(folder / "sbin/ag-ui"),
        "__ag_ui_command_library": str(folder / "lib"),
        "__ag_ui_command_completion": str(folder / "completions/ag-ui"),
    }
    return run_role_tasks(folder, [tasks], own | changes, *arguments)


def test_command_is_installed_once(tmp_path: Path) -> None:
    planned = install(tmp_path, "--check")
    assert (planned.code, planned.changes) == (0, {"hx-dev-server": 1}), planned.output
    assert not (tmp_path / "sbin").exists()
    left = tmp_path / "lib/ag_ui_command/old/module.py"
    left.parent.mkdir(parents=True)
    left.touch()
    done = install(tmp_path)
    assert (done.code, done.changes) == (0, {"hx-dev-server": 1}), done.output
    assert not left.parent.exists()
    assert not (tmp_path / "lib/ag_ui_backup").exists()
    command = tmp_path / "sbin/ag-ui"
    assert command.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "completions/ag-ui").stat().st_mode & 0o777 == 0o644
    again = install(tmp_path)
    assert (again.code, again.changes) == (0, {"hx-dev-server": 0}), again.output


def test_installed_code_needs_only_the_standard_library(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert done.code == 0, done.output
    text = (tmp_path / "sbin/ag-ui").read_text()
    assert text.startswith("#!/usr/bin/python3 -IB\n")
    (tmp_path / "sbin/ag-ui").write_text(text.replace("/usr/local/lib/ag-ui", f"{tmp_path}/lib"))
    # -S: without the packages of this environment.
    shown = subprocess.run(
        [sys.executable, "-IBS", tmp_path / "sbin/ag-ui", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert "usage: ag-ui" in shown.stdout


def test_description_has_the_variables_of_the_site(tmp_path: Path) -> None:
    changes = {
        "ag_ui_server_name": "ag-ui.example",
        "ag_ui_https_port": "8443",
        "ag_ui_backend_ports": [9002, 9003],
        "ag_ui_tls_mode": "provided",
        "ag_ui_tls_ca": "ca.pem",
        "ag_ui_watch_time": 5,
    }
    done = install(tmp_path, tasks="command_site", **changes)
    assert done.code == 0, done.output
    site = json.loads((tmp_path / "etc/site.json").read_text())
    assert (site["server_name"], site["https_port"]) == ("ag-ui.example", 8443)
    assert (site["ports"], site["watch_seconds"]) == ([9002, 9003], 5)
    assert site["ca"] == f"{tmp_path}/etc/tls/ca.crt"
    assert site["maintenance"] == f"{tmp_path}/state/maintenance"
    # Anybody may read it.
    secrets = [value for name, value in REQUIRED_VARIABLES.items() if "password" in name]
    assert not [secret for secret in secrets if secret in json.dumps(site)]
