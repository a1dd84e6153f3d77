"""The role makes the directory of the uploads, which others may not enter."""

from __future__ import annotations

import grp
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run


def make(folder: Path, directory: str, group: str = "") -> Run:
    """Run the tasks of the account, which is that of this process, on a folder in place of a host."""
    own = {
        "__ag_ui_preflight": {"gid": os.getgid()},
        "__ag_ui_config_dir": str(folder / "etc"),
        "__ag_ui_state_dir": str(folder / "state"),
        "ag_ui_uid": os.getuid(),
        "ag_ui_uploads_directory": directory,
        "ag_ui_uploads_group": group,
    }
    return run_role_tasks(folder, ["account"], own)


@pytest.mark.parametrize("with_group", [False, True])
def test_directory_is_made_once(tmp_path: Path, *, with_group: bool) -> None:
    directory = tmp_path / "srv/uploads"
    group = grp.getgrgid(os.getgid()).gr_name if with_group else ""
    done = make(tmp_path, str(directory), group)
    assert done.code == 0, done.output
    status = directory.stat()
    assert stat.S_IMODE(status.st_mode) == (0o2750 if with_group else 0o750)
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    again = make(tmp_path, str(directory), group)
    assert (again.code, again.changes) == (0, {"hx-dev-server": 0}), again.output


def test_no_directory_is_made_while_uploads_are_off(tmp_path: Path) -> None:
    done = make(tmp_path, "")
    assert done.code == 0, done.output
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"etc", "state"}
