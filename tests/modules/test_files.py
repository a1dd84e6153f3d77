"""Several files and directories are installed in one step."""

from __future__ import annotations

import grp
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module

if TYPE_CHECKING:
    from pathlib import Path


def install(folder: Path, *, check: bool = False) -> dict[str, Any]:
    """Install a program, and a directory that has only one module."""
    files = [
        {"path": f"{folder}/bin/program", "content": "#!/bin/sh\n", "mode": "0755"},
        {"path": f"{folder}/lib/package/module.py", "content": "é = 1\n", "mode": "0644"},
    ]
    options = {"files": files, "exclusive": f"{folder}/lib", "_ansible_check_mode": check}
    return run_module("ag_ui_files", options, folder, {})


def test_files_are_installed_once(tmp_path: Path) -> None:
    planned = install(tmp_path, check=True)
    assert planned["changed"]
    assert not (tmp_path / "bin").exists()
    assert install(tmp_path)["written"] == planned["written"]
    program, module = tmp_path / "bin/program", tmp_path / "lib/package/module.py"
    assert (program.stat().st_mode & 0o777, program.read_text()) == (0o755, "#!/bin/sh\n")
    assert (module.stat().st_mode & 0o777, module.read_text()) == (0o644, "é = 1\n")
    assert sorted(path.name for path in tmp_path.rglob("*.new")) == []
    assert not install(tmp_path)["changed"]


@pytest.mark.parametrize("change", ["content", "mode", "missing"])
def test_changed_file_is_restored(tmp_path: Path, change: str) -> None:
    install(tmp_path)
    program = tmp_path / "bin/program"
    if change == "content":
        program.write_text("exit\n")
    elif change == "mode":
        program.chmod(0o644)
    else:
        program.unlink()
    assert install(tmp_path)["written"] == [str(program)]
    assert (program.stat().st_mode & 0o777, program.read_text()) == (0o755, "#!/bin/sh\n")


def test_other_files_of_the_directory_are_removed(tmp_path: Path) -> None:
    install(tmp_path)
    old = tmp_path / "lib/old"
    (old / "deeper").mkdir(parents=True)
    (old / "deeper/file").touch()
    (tmp_path / "lib/package/gone.py").touch()
    (tmp_path / "lib/link").symlink_to(tmp_path / "bin")
    removed = [str(old), f"{tmp_path}/lib/link", f"{tmp_path}/lib/package/gone.py"]
    assert sorted(install(tmp_path, check=True)["removed"]) == sorted(removed)
    assert old.exists()
    assert sorted(install(tmp_path)["removed"]) == sorted(removed)
    assert sorted(path.name for path in (tmp_path / "lib").rglob("*")) == ["module.py", "package"]
    assert (tmp_path / "bin/program").exists()


def test_file_has_the_content_of_another_and_its_group(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("first\n")
    group = grp.getgrgid(os.getgid()).gr_name
    file = {"path": f"{tmp_path}/copy", "src": f"{tmp_path}/source", "mode": "0640", "group": group}
    assert run_module("ag_ui_files", {"files": [file]}, tmp_path, {})["changed"]
    assert not run_module("ag_ui_files", {"files": [file]}, tmp_path, {})["changed"]
    (tmp_path / "source").write_text("second\n")
    assert run_module("ag_ui_files", {"files": [file]}, tmp_path, {})["written"] == [file["path"]]
    copy = tmp_path / "copy"
    assert (copy.stat().st_mode & 0o777, copy.read_text()) == (0o640, "second\n")
    assert copy.stat().st_gid == os.getgid()


def test_missing_group_is_no_error_in_check_mode(tmp_path: Path) -> None:
    file = {"path": f"{tmp_path}/file", "content": "", "mode": "0640", "group": "no-such-group"}
    options = {"files": [file], "_ansible_check_mode": True}
    assert run_module("ag_ui_files", options, tmp_path, {})["written"] == [file["path"]]


def test_directories_are_created_once_with_their_mode(tmp_path: Path) -> None:
    directory = tmp_path / "a/b"
    options = {"directories": [str(directory)]}
    assert run_module("ag_ui_files", options | {"_ansible_check_mode": True}, tmp_path, {})[
        "changed"
    ]
    assert not directory.exists()
    assert run_module("ag_ui_files", options, tmp_path, {})["created"] == [str(directory)]
    assert not run_module("ag_ui_files", options, tmp_path, {})["changed"]
    directory.chmod(0o700)
    assert run_module("ag_ui_files", options, tmp_path, {})["changed"]
    assert directory.stat().st_mode & 0o777 == 0o755
