"""What an uninstall keeps on purpose."""

from __future__ import annotations

import json
import stat
import sys
from typing import TYPE_CHECKING

import yaml  # type: ignore[import-untyped]

from tests.support.playbook import run_playbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

KEYS = {"jwt_secret": "j" * 48, "audit_key": "a" * 48}


def keep_keys(folder: Path) -> Run:
    """Run the part of an uninstall that keeps the keys, with a folder in place of the host."""
    role = {"name": "ag_ui_deployment", "tasks_from": "uninstall_keys"}
    tasks = [{"name": "Keep the keys", "ansible.builtin.include_role": role}]
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    own = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "__ag_ui_config_dir": f"{folder}/etc",
        "__ag_ui_backup_dir": f"{folder}/backups",
    }
    return run_playbook(
        "--inventory", "hx-dev-server,", "--extra-vars", json.dumps(own), folder / "play.yml"
    )


def test_purge_keeps_a_copy_of_the_keys_for_root_only(tmp_path: Path) -> None:
    secrets = tmp_path / "etc/secrets"
    secrets.mkdir(parents=True, mode=0o700)
    (tmp_path / "backups").mkdir()
    for name, key in KEYS.items():
        (secrets / name).write_text(key)
        (secrets / name).chmod(0o600)
    run = keep_keys(tmp_path)
    assert run.code == 0, run.output
    [copy] = (tmp_path / "backups").iterdir()
    assert {path.name: path.read_text() for path in copy.iterdir()} == KEYS
    for path in (copy, *copy.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert str(copy) in run.output
    assert not [key for key in KEYS.values() if key in run.output]


def test_host_without_keys_has_nothing_to_keep(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    run = keep_keys(tmp_path)
    assert (run.code, set(run.changes.values())) == (0, {0}), run.output
    assert list((tmp_path / "backups").iterdir()) == []
