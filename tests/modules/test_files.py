"""Several files are installed in one step."""

from __future__ import annotations

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
