"""What an uninstall keeps on purpose, and which packages it removes."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import run_playbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

KEYS = {"jwt_secret": "j" * 48, "audit_key": "a" * 48}


# Nothing needs the recorded packages.
PROGRAMS = {
    "dpkg-query": "printf 'installed %s\\n' nginx docker.io curl bash",
    "apt-get": """case $1 in
--simulate) echo "Purg $4 [1.0]" ;;
*) shift 2; echo "$@" >>"$STATE/purged" ;;
esac""",
    "docker": 'cat "$STATE/docker-$1" 2>/dev/null',
}


def run_tasks(folder: Path, name: str) -> Run:
    """Run tasks of an uninstall, with a folder in place of the host."""
    role = {"name": "ag_ui_deployment", "tasks_from": name}
    tasks = [{"name": "Run them", "ansible.builtin.include_role": role}]
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    own = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "__ag_ui_config_dir": f"{folder}/etc",
        "__ag_ui_backup_dir": f"{folder}/backups",
        "__ag_ui_state_dir": f"{folder}/state",
        "__ag_ui_proxy_nginx": f"{folder}/nginx",
    }
    return run_playbook(
        *("--inventory", "hx-dev-server,", "--extra-vars", json.dumps(own), folder / "play.yml"),
        environment={"PATH": f"{folder}:{os.environ['PATH']}", "STATE": str(folder)},
    )


def keep_keys(folder: Path) -> Run:
    return run_tasks(folder, "uninstall_keys")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A host on which the role has installed nginx, the engine and curl."""
    for name in ("nginx/conf.d", "nginx/sites-enabled", "state"):
        (tmp_path / name).mkdir(parents=True)
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n:\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "nginx/sites-enabled/default").touch()
    (tmp_path / "state/packages").write_text("curl\ndocker.io\nnginx\n")
    return tmp_path


def purged(folder: Path) -> list[str]:
    return (folder / "purged").read_text().split()


def test_recorded_packages_are_removed(packages: Path) -> None:
    run = run_tasks(packages, "uninstall_packages")
    assert run.code == 0, run.output
    assert purged(packages) == ["curl", "docker.io", "nginx"]


@pytest.mark.parametrize(
    ("other", "kept"),
    [
        ("nginx/conf.d/shop.conf", "nginx"),
        ("nginx/sites-enabled/shop", "nginx"),
        ("docker-ps", "docker.io"),
        ("docker-image", "docker.io"),
        ("docker-volume", "docker.io"),
    ],
)
def test_packages_that_serve_others_are_kept(packages: Path, other: str, kept: str) -> None:
    (packages / other).write_text("0123456789ab\n")
    run = run_tasks(packages, "uninstall_packages")
    assert run.code == 0, run.output
    assert purged(packages) == [one for one in ("curl", "docker.io", "nginx") if one != kept]
    assert f"because something else on hx-dev-server needs them: {kept}" in run.output


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
