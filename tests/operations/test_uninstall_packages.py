"""Which packages an uninstall removes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

# Nothing needs the recorded packages.
PROGRAMS = {
    "dpkg-query": "printf 'installed %s\\n' nginx docker.io curl bash",
    "apt-get": """case $1 in
--simulate) echo "Purg $4 [1.0]" ;;
*) shift 2; echo "$@" >>"$STATE/purged" ;;
esac""",
    "docker": 'cat "$STATE/docker-$1" 2>/dev/null',
}


def uninstall_packages(folder: Path) -> Run:
    """Run this part of an uninstall, with a folder in place of the host."""
    variables = {
        "__ag_ui_state_dir": f"{folder}/state",
        "__ag_ui_proxy_nginx": f"{folder}/nginx",
    }
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "STATE": str(folder)}
    return run_role_tasks(folder, ["uninstall_packages"], variables, environment=environment)


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
    run = uninstall_packages(packages)
    assert run.code == 0, run.output
    assert purged(packages) == ["curl", "docker.io", "nginx"]


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        (["nginx/sites-enabled/shop"], "nginx"),
        (["nginx/conf.d/shop.conf", "docker-volume"], "docker.io, nginx"),
    ],
)
def test_packages_that_serve_others_are_kept(packages: Path, others: list[str], kept: str) -> None:
    for other in others:
        (packages / other).write_text("0123456789ab\n")
    run = uninstall_packages(packages)
    assert run.code == 0, run.output
    assert purged(packages) == [one for one in ("curl", "docker.io", "nginx") if one not in kept]
    assert f"because something else on hx-dev-server needs them: {kept}" in run.output
