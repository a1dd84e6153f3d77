"""The next deployment and an uninstall remove what former deployments have left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

RETIRED = "ag-ui-backend@8004.service"
FORMER_UNIT = "ag-ui-backend@.service"
# A stub of systemd: every unit is running, and calls are recorded.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$STATE/systemctl"
case $1 in
show) printf 'LoadState=loaded\\nActiveState=active\\nId=%s\\n' "$2" ;;
is-enabled) echo disabled; exit 1 ;;
is-active) exit 3 ;;
esac
"""


class Host:
    """A folder in place of a host with the files of a role version without release directories."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "etc/secrets", "state", "systemd", "control", "nginx"):
            (folder / name).mkdir(parents=True)
        for name, text in {"systemctl": SYSTEMCTL, "docker": "#!/bin/sh\n"}.items():
            program = folder / "bin" / name
            program.write_text(text)
            program.chmod(0o755)
        (folder / "etc/release.env").write_text("AG_UI_IMAGE=a:1\nAG_UI_RELEASE=former\n")
        (folder / "etc/backend.env").write_text("JWT_SECRET='secret'\n")
        (folder / "etc/secrets/jwt_secret").write_text("secret\n")
        for name in ("ag-ui.target", FORMER_UNIT):
            (folder / "systemd" / name).write_text("[Unit]\n")
        (folder / "nginx/nginx.conf").write_text("events {}\n")

    def files(self, *names: str) -> set[str]:
        return {path.name for name in names for path in (self.folder / name).iterdir()}

    def run(self, tasks: str, **changes: Any) -> Run:
        own = {
            "__ag_ui_account": "ag-ui-not-made",
            "__ag_ui_config_dir": str(self.folder / "etc"),
            "__ag_ui_state_dir": str(self.folder / "state"),
            "__ag_ui_proxy_nginx": str(self.folder / "nginx"),
            "__ag_ui_unit_dirs": [str(self.folder / "systemd"), str(self.folder / "control")],
        }
        return run_role_tasks(
            self.folder,
            [tasks],
            own | changes,
            environment={
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                "STATE": str(self.folder),
            },
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_uninstall_removes_files_of_a_former_role_version(host: Host) -> None:
    (host.folder / "state/frontend/0123456789abcdef").mkdir(parents=True)
    run = host.run("uninstall", ag_ui_uninstall=True)
    assert run.code == 0, run.output
    assert host.files("systemd", "control") == set()
    assert host.files("etc") == {"secrets"}
    assert not (host.folder / "state").exists()


def test_deployment_removes_an_instance_that_was_never_enabled(host: Host) -> None:
    (host.folder / "etc/releases/new").mkdir(parents=True)
    for name in ("systemd", "control"):
        (host.folder / name / RETIRED).write_text("[Unit]\n")
    units = {RETIRED: {"release": "", "endpoint": ""}}
    run = host.run(
        "release_finish",
        __ag_ui_preflight={"units": units, "current": ""},
        __ag_ui_release="new",
        __ag_ui_image="a:2",
        ag_ui_image_source="registry",
    )
    assert run.code == 0, run.output
    assert f"stop {RETIRED}" in (host.folder / "systemctl").read_text()
    assert host.files("systemd", "control") == {"ag-ui.target"}
    assert host.files("etc") == {"secrets", "releases", "current"}
    # The former version's release stays with its image.
    assert host.files("etc/releases") == {"former", "new"}
