"""The role installs the program of the backup, with packages only if some are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

S3 = {"ag_ui_backup_s3_target": "s3://backups", "ag_ui_backup_encryption": "none"}


def install(folder: Path, installed: str, **variables: object) -> Run:
    """Run the tasks of the program on a folder in place of a host, which has the named packages."""
    stub = folder / "dpkg-query"
    stub.write_text(f"#!/bin/sh\nprintf 'installed %s\\n' {installed}\nexit 1\n")
    stub.chmod(0o755)
    own = {
        "__ag_ui_state_dir": str(folder / "state"),
        "__ag_ui_backup_library": str(folder / "lib"),
        "__ag_ui_backup_program": str(folder / "sbin/ag-ui-backup"),
    }
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return run_role_tasks(folder, ["backup_program"], own | variables, environment=environment)


def test_program_is_installed_once(tmp_path: Path) -> None:
    left = tmp_path / "lib/ag_ui_backup/former.py"
    left.parent.mkdir(parents=True)
    left.touch()
    done = install(tmp_path, "postgresql-client age")
    assert (done.code, done.changes) == (0, {"hx-dev-server": 1}), done.output
    assert not left.exists()
    program = tmp_path / "sbin/ag-ui-backup"
    text = program.read_text()
    assert text.startswith("#!/usr/bin/python3 -IB\n")
    program.write_text(text.replace("/usr/local/lib/ag-ui-backup", f"{tmp_path}/lib"))
    # -S: without the packages of this environment.
    shown = subprocess.run(
        [sys.executable, "-IBS", program, "--help"], capture_output=True, text=True, check=False
    )
    assert "usage: ag-ui-backup" in shown.stdout, shown.stderr
    program.write_text(text)
    again = install(tmp_path, "postgresql-client age")
    assert (again.code, again.changes) == (0, {"hx-dev-server": 0}), again.output


def test_packages_of_a_target_are_missing_without_it(tmp_path: Path) -> None:
    """The second list of packages fails, so that nothing is installed on this machine."""
    packages = "postgresql-client ca-certificates"
    none = install(tmp_path, packages, ag_ui_backup_encryption="none")
    assert none.code == 0, none.output
    some = install(tmp_path, packages, **S3)
    assert some.code != 0
    assert [task for task in some.tasks if "List the packages that the host has" in task]
    both = install(tmp_path, f"{packages} rclone", **S3)
    assert both.code == 0, both.output
