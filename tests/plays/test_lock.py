"""A second run is refused with the name of the one that has the lock; an ended one loses it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

OTHER = {
    "holder": "somebody@another-controller",
    "run": "another-controller 1 Mon Nov 30 10:00:00 2026",
    "purpose": "rollback",
    "since": "2026-11-30T10:00:00Z",
}


def take(folder: Path, *, force: bool = False, unlock: bool = False) -> Run:
    """Run the tasks that take the lock of a folder in place of a host."""
    names = ["lock", *(["unlock"] if unlock else [])]
    variables = {"ag_ui_force_unlock": force, "__ag_ui_state_dir": str(folder / "state")}
    return run_role_tasks(folder, names, variables)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state/deployment.lock"


def test_lock_of_an_ended_run_of_this_controller_is_taken_over(lock: Path) -> None:
    folder = lock.parents[1]
    assert take(folder).code == 0
    first = json.loads(lock.read_text())
    again = take(folder)
    assert again.code == 0, again.output
    second = json.loads(lock.read_text())
    # The same user on the same controller, in another process.
    assert second["holder"] == first["holder"]
    assert second["run"] != first["run"]
    assert take(folder, unlock=True).code == 0
    assert not lock.exists()


def test_run_of_another_controller_is_named_and_can_be_forced(lock: Path) -> None:
    folder = lock.parents[1]
    lock.write_text(json.dumps(OTHER))
    refused = take(folder, unlock=True)
    assert refused.code != 0
    assert (
        "Nothing was changed. somebody@another-controller has the lock of hx-dev-server since "
        "2026-11-30T10:00:00Z, for a rollback." in refused.message
    )
    assert json.loads(lock.read_text()) == OTHER
    assert take(folder, force=True).code == 0
    assert json.loads(lock.read_text()) != OTHER
