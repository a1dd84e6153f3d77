"""Only one run at a time has the lock of a host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.ansible_module import run_module

if TYPE_CHECKING:
    from pathlib import Path


def lock(folder: Path, run: str, **options: Any) -> dict[str, Any]:
    given = {"path": str(folder / "state/deployment.lock"), "run": run, "holder": f"{run}@site"}
    return run_module("ag_ui_lock", given | options, folder, {})


def test_second_run_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    assert lock(tmp_path, "first", purpose="rollback")["held"]
    second = lock(tmp_path, "second")
    assert not second["held"]
    assert (second["other"]["holder"], second["other"]["purpose"]) == ("first@site", "rollback")
    assert lock(tmp_path, "first")["held"]


def test_run_keeps_the_lock_that_it_has(tmp_path: Path) -> None:
    """Removing and creating it again would let another run in."""
    lock(tmp_path, "first", purpose="restore")
    assert lock(tmp_path, "first", purpose="deployment")["held"]
    assert lock(tmp_path, "second")["other"]["purpose"] == "restore"


def test_lock_is_released_by_its_run_only(tmp_path: Path) -> None:
    lock(tmp_path, "first")
    lock(tmp_path, "second", state="absent")
    assert not lock(tmp_path, "second")["held"]
    lock(tmp_path, "first", state="absent")
    assert lock(tmp_path, "second")["held"]


def test_lock_of_an_ended_run_is_taken_over(tmp_path: Path) -> None:
    lock(tmp_path, "first")
    assert not lock(tmp_path, "second", replaces="another")["held"]
    assert lock(tmp_path, "second", replaces="first")["held"]
    assert lock(tmp_path, "third", replaces="*")["held"]


def test_damaged_lock_is_reported_and_can_be_removed(tmp_path: Path) -> None:
    lock(tmp_path, "first")
    (tmp_path / "state/deployment.lock").write_text("{")
    assert lock(tmp_path, "second") | {"invocation": None} == {
        "changed": False,
        "held": False,
        "other": {},
        "invocation": None,
    }
    assert lock(tmp_path, "second", replaces="*")["held"]
    assert json.loads((tmp_path / "state/deployment.lock").read_text())["run"] == "second"


def test_check_mode_takes_no_lock(tmp_path: Path) -> None:
    lock(tmp_path, "first", _ansible_check_mode=True)
    assert not (tmp_path / "state").exists()
