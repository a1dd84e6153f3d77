"""What an instance's unit passes to its container, and what it isolates."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.ansible_module import PLUGINS
from tests.support.role_templates import ROLE, RUNTIME_FACTS, inventory, render
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = f"/etc/ag-ui/releases/{RUNTIME_FACTS['__ag_ui_release']}"


def words_of(folder: Path, name: str) -> dict[str, list[str]]:
    """Return the words of each line of a host's unit by its name."""
    text = (folder / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return {name: shlex.split(value) for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the unit of each host."""
    hosts = {"alone-1": {}, "uploading-1": {"ag_ui_uploads_directory": "/srv/ag-ui/uploads"}}
    sites = inventory(
        {name: {name: variables} for name, variables in hosts.items()}, REQUIRED_VARIABLES
    )
    return render(tmp_path_factory.mktemp("unit"), "ag-ui-backend@.service.j2", sites)


@pytest.fixture(scope="module")
def unit(units: Path) -> dict[str, list[str]]:
    """Return the words of each line of the unit by its name."""
    return words_of(units, "alone-1")


@pytest.mark.parametrize(
    "option",
    [
        "--read-only",
        "--rm",
        "--pull=never",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--user=1001:1001",
        "--memory=1g",
        "--memory-swap=1g",
        "--pids-limit=256",
        "--ulimit=nofile=16384",
        "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m",
        f"--volume={RELEASE}/backend.env:/app/.env:ro",
        "--label=ag-ui.release=${AG_UI_RELEASE}",
    ],
)
def test_container_option_is_set(unit: dict[str, list[str]], option: str) -> None:
    assert option in unit["ExecStart"]


def test_container_mounts_only_its_environment(
    unit: dict[str, list[str]],
) -> None:
    words = unit["ExecStart"]
    assert len([word for word in words if word.startswith(("--volume", "-v", "--mount"))]) == 1
    assert not [
        word for word in words if word.startswith(("--privileged", "--cap-add", "--device"))
    ]


def test_container_mounts_the_directory_of_uploads(units: Path) -> None:
    words = words_of(units, "uploading-1")["ExecStart"]
    mounts = [word for word in words if word.startswith("--volume")]
    assert mounts[1:] == ["--volume=/srv/ag-ui/uploads:/srv/ag-ui/uploads:rw"]


def test_unit_uses_the_files_of_its_release(unit: dict[str, list[str]]) -> None:
    """A unit that is restored brings the image and settings of its release back."""
    assert unit["EnvironmentFile"] == [f"{RELEASE}/release.env"]


def test_start_waits_for_readiness_and_stops_on_timeout(
    unit: dict[str, list[str]],
) -> None:
    [_, _, command] = unit["ExecStartPost"]
    ready_within, stopped_within = map(int, re.findall(r"(?:timeout|stop -t) (\d+)", command))
    assert "http://127.0.0.1:%i/health/ready" in command
    assert int(unit["TimeoutStartSec"][0]) > ready_within + stopped_within
    assert int(unit["TimeoutStopSec"][0]) > stopped_within == int(unit["ExecStop"][3])


def test_environment_file_is_readable_by_root_and_the_service_only() -> None:
    tasks = yaml.safe_load((ROLE / "tasks/release_stage.yml").read_text())
    [block] = [task["block"] for task in tasks if "block" in task]
    [file] = [
        file
        for task in block
        for file in task.get("hx_citadel.shield_ag_ui.ag_ui_files", {}).get("files", [])
        if "'backend.env.j2'" in file["content"]
    ]
    mode = int(file["mode"], 8)
    assert file["group"] == "{{ __ag_ui_account }}"
    assert mode & (stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP) == 0


def test_client_is_confined(tmp_path: Path) -> None:
    """The service is root and reaches the engine; everything else that systemd can restrict is."""
    hosts = inventory(
        {"alone": {"alone-1": {"ag_ui_bind_address": "192.0.2.7"}}}, REQUIRED_VARIABLES
    )
    text = (render(tmp_path, "ag-ui-backend@.service.j2", hosts) / "alone-1").read_text()
    assert "IPAddressAllow=localhost 192.0.2.7\n" in text
    assert_confined(tmp_path / "ag-ui-backend@8002.service", text)


def test_recovery_is_confined_and_has_the_name_that_units_under_trial_start(tmp_path: Path) -> None:
    control = (PLUGINS / "module_utils/ag_ui_instance_control.py").read_text()
    [name] = re.findall("^OnFailure=(.*@)%i.service$", control, re.MULTILINE)
    hosts = inventory({"alone": {"alone-1": {}}}, REQUIRED_VARIABLES)
    text = (render(tmp_path, f"{name}.service.j2", hosts) / "alone-1").read_text()
    assert "ExecStart=/usr/local/sbin/ag-ui recover %i\n" in text
    assert_confined(tmp_path / f"{name}8002.service", text)


def assert_confined(unit: Path, text: str) -> None:
    unit.write_text(text)
    # The threshold is in tenths.
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
