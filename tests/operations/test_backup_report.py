"""The playbook says where the archive of a backup is, or why there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run


def report(folder: Path, code: int, result: dict[str, object] | None) -> Run:
    """Report the end of the unit with this exit code and result."""
    if result is not None:
        (folder / "backup.json").write_text(json.dumps(result))
    variables = {
        "__ag_ui_state_dir": str(folder),
        "__ag_ui_backup_run": {"rc": code, "stderr": "the unit failed"},
    }
    return run_role_tasks(folder, ["backup_report"], variables)


def test_archive_of_a_backup_is_named(tmp_path: Path) -> None:
    done = report(tmp_path, 0, {"archive": "/backups/one.tar", "size": 7, "seconds": 1.5})
    assert done.code == 0, done.output
    assert "/backups/one.tar: 7 bytes in 1.5 s, verified" in done.output


def test_reason_of_a_failed_backup_is_in_the_message(tmp_path: Path) -> None:
    done = report(tmp_path, 1, {"ok": False, "reason": "no pg_hba.conf entry"})
    assert done.code != 0
    assert "The backup of hx-dev-server failed: no pg_hba.conf entry" in done.message


def test_backup_without_a_result_has_the_words_of_systemd(tmp_path: Path) -> None:
    done = report(tmp_path, 1, None)
    assert done.code != 0
    assert "The backup of hx-dev-server failed: the unit failed" in done.message
