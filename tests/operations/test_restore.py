"""A restore holds the lock of the host before it reads or stops anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

OTHER = {"holder": "somebody@another-controller", "run": "another", "purpose": "deployment"}


def restore(folder: Path) -> Run:
    """Restore an archive that does not exist to a folder in place of a host."""
    variables = {
        "ag_ui_restore_archive": str(folder / "missing.tar"),
        "ag_ui_backup_directory": str(folder / "backups"),
        # A fact that the check of the archive sets.
        "__ag_ui_backup_manifest": {"files": {}},
        "__ag_ui_config_dir": str(folder / "etc"),
        "__ag_ui_state_dir": str(folder / "state"),
    }
    return run_role_tasks(folder, ["restore"], variables)


def test_restore_during_another_run_is_refused_and_leaves_its_files(tmp_path: Path) -> None:
    lock, dump = tmp_path / "state/deployment.lock", tmp_path / "backups/.restore/database"
    for path in (lock, dump):
        path.parent.mkdir(parents=True)
    lock.write_text(json.dumps(OTHER))
    dump.touch()
    done = restore(tmp_path)
    assert done.code != 0
    assert "Nothing was changed. somebody@another-controller has the lock of" in done.message
    assert not [task for task in done.tasks if "Restore | Read" in task]
    assert json.loads(lock.read_text()) == OTHER
    assert dump.exists()


def test_failed_restore_releases_its_lock(tmp_path: Path) -> None:
    done = restore(tmp_path)
    assert done.code != 0
    assert "missing.tar" in done.message, done.output
    assert any(task.endswith("Lock | Take the lock of the host") for task in done.tasks)
    assert not (tmp_path / "state/deployment.lock").exists()
