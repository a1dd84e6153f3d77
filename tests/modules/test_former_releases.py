"""Releases that are kept, and the removal of older ones with all their parts."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module

if TYPE_CHECKING:
    from pathlib import Path

# A stub of docker: its images are lines of a file.
DOCKER = """#!/bin/sh
case "$1 $2 $*" in
"image inspect "*)
  grep -qxF "$5" "$STATE/images" || exit 1
  if grep -qsxF "$5" "$STATE/retagged"; then echo sha256:other; else echo "sha256:$5"; fi
  ;;
"image rm "*) grep -vxF "$3" "$STATE/images" >"$STATE/left"; mv "$STATE/left" "$STATE/images" ;;
*label=ag-ui.stage*) grep '^layer-' "$STATE/images" ;;
"image ls "*) grep ':' "$STATE/images" ;;
esac
"""
UNIT = "ag-ui-backend@.service"
OTHERS = ["postgres:17", "shield-ag-ui-backend-of-somebody:1", "shield-ag-ui-backend:mine"]
PULLED = "registry.example/backend:1"


def own(name: str, kind: str = "backend") -> str:
    """Return the role's name for an image that it builds."""
    return f"shield-ag-ui-{kind}:{hashlib.sha256(name.encode()).hexdigest()[:16]}"


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "releases").mkdir()
        (root / "bin").mkdir()
        program = root / "bin/docker"
        program.write_text(DOCKER)
        program.chmod(0o755)
        self.images = [*OTHERS, "layer-new", "layer-old"]
        self.clock = 0

    @property
    def images(self) -> list[str]:
        return (self.root / "images").read_text().split()

    @images.setter
    def images(self, names: list[str]) -> None:
        (self.root / "images").write_text("".join(f"{name}\n" for name in names))

    @property
    def releases(self) -> set[str]:
        return {path.name for path in (self.root / "releases").iterdir()}

    @property
    def current(self) -> str:
        return str((self.root / "current").readlink())

    def write(self, release: str, image: str) -> None:
        """Write what a deployment writes before it has tried the release."""
        folder = self.root / "releases" / release
        folder.mkdir()
        (folder / "release.env").write_text(f"# managed\nAG_UI_IMAGE={image}\n")
        self.images = [*dict.fromkeys([*self.images, image])]

    def record(self, release: str = "", *, check: bool = False, **changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "directory": str(self.root),
            "release": release,
            "keep": 3,
            "repositories": ["shield-ag-ui-backend", "shield-ag-ui-base"],
            "keep_images": [own("new", "base")],
            "layer_label": "ag-ui.stage",
            "pulled": str(self.root / "pulled"),
            "former_unit": str(self.root / UNIT),
            "_ansible_check_mode": check,
        }
        environment = {
            "STATE": str(self.root),
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
        }
        changed = False
        if release:
            recorded = self.run_record(release, _ansible_check_mode=check)
            changed = recorded["changed"]
        answer = run_module("ag_ui_releases", arguments | changes, self.root, environment)
        assert not answer.get("failed"), answer
        answer["changed"] |= changed
        deployed = self.root / "releases" / release / "deployed"
        if release and deployed.exists():
            # Time between two deployments, simulated instead of waiting.
            self.clock += 1
            os.utime(deployed, (self.clock, self.clock))
        return answer

    def run_record(self, release: str, **options: Any) -> dict[str, Any]:
        given = {"directory": str(self.root), "release": release, "by": "operator@controller"}
        answer = run_module("ag_ui_release_record", given | options, self.root, {})
        assert not answer.get("failed"), answer
        return answer

    def outcome(self, release: str) -> str:
        """Return what the record of a release says; empty if there is none."""
        record = self.root / "releases" / release / "record.json"
        return str(json.loads(record.read_text())["outcome"]) if record.exists() else ""

    def deploy(self, *releases: str) -> None:
        for release in releases:
            self.write(release, own(release))
            self.record(release)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_last_three_releases_are_kept_with_their_images(host: Host) -> None:
    host.deploy("1", "2", "3", "4", "5")
    assert host.releases == {"3", "4", "5"}
    assert set(host.images) == {*OTHERS, own("3"), own("4"), own("5"), "layer-new"}
    assert host.current == "releases/5"


def test_refused_release_is_removed_and_does_not_count(host: Host) -> None:
    host.deploy("1", "2", "3")
    host.write("refused", own("refused"))
    assert host.record("3")["removed"] == ["refused", own("refused")]
    assert host.releases == {"1", "2", "3"}


def test_redeployed_release_is_the_newest(host: Host) -> None:
    host.deploy("1", "2", "3")
    host.record("1")
    host.deploy("4")
    assert host.releases == {"1", "3", "4"}


def test_image_of_two_releases_is_kept_for_the_second(host: Host) -> None:
    for release in ("1", "2", "3", "4"):
        host.write(release, own("same"))
        host.record(release)
    assert host.releases == {"2", "3", "4"}
    assert own("same") in host.images


def test_pulled_image_is_removed_with_its_last_release(host: Host) -> None:
    (host.root / "pulled").write_text(f"{PULLED} sha256:{PULLED}\nlater:1 sha256:later:1\n")
    host.write("1", PULLED)
    host.record("1")
    host.deploy("2", "3")
    assert PULLED in host.images
    host.deploy("4")
    assert PULLED not in host.images
    assert (host.root / "pulled").read_text() == "later:1 sha256:later:1\n"


@pytest.mark.parametrize("was", ["there before", "given another name since"])
def test_image_that_the_role_did_not_pull_is_kept(host: Host, was: str) -> None:
    if was != "there before":
        (host.root / "pulled").write_text(f"{PULLED} sha256:{PULLED}\n")
        (host.root / "retagged").write_text(f"{PULLED}\n")
    host.write("1", PULLED)
    host.record("1")
    host.deploy("2", "3", "4")
    assert host.releases == {"2", "3", "4"}
    assert PULLED in host.images


def test_only_the_last_base_image_is_kept(host: Host) -> None:
    host.images = [*host.images, own("old", "base"), own("new", "base")]
    host.deploy("1")
    assert [image for image in host.images if "base" in image] == [own("new", "base")]


def former_layout(host: Host) -> None:
    """Write the files of a role version without release directories."""
    image = own("former")
    (host.root / "release.env").write_text(f"AG_UI_IMAGE={image}\nAG_UI_RELEASE=0f0f\n")
    (host.root / "backend.env").write_text("JWT_SECRET='secret'\n")
    (host.root / "backend.env").chmod(0o640)
    (host.root / UNIT).write_text("[Unit]\n")
    host.images = [*host.images, image]


def test_release_of_a_former_role_version_counts_as_one_of_three(host: Host) -> None:
    former_layout(host)
    host.deploy("1")
    assert host.releases == {"0f0f", "1"}
    assert own("former") in host.images
    kept = host.root / "releases/0f0f"
    assert {path.name for path in kept.iterdir()} >= {"release.env", "backend.env", UNIT}
    assert stat.S_IMODE((kept / "backend.env").stat().st_mode) == 0o640
    for name in ("release.env", "backend.env", UNIT):
        assert not (host.root / name).exists()
    os.utime(kept / "deployed", (0, 0))
    host.deploy("2")
    assert own("former") in host.images
    host.deploy("3")
    assert host.releases == {"1", "2", "3"}
    assert own("former") not in host.images


def test_check_mode_does_not_move_a_former_role_version(host: Host) -> None:
    former_layout(host)
    host.write("1", own("1"))
    assert host.record("1", check=True)["changed"]
    assert (host.root / "backend.env").exists()
    assert own("former") in host.images


def test_uninstall_removes_a_former_role_version(host: Host) -> None:
    former_layout(host)
    host.record(keep=0, keep_images=[])
    assert host.releases == set()
    assert set(host.images) == set(OTHERS)
    assert not [
        name for name in ("release.env", "backend.env", UNIT) if (host.root / name).exists()
    ]


def test_a_second_run_changes_nothing(host: Host) -> None:
    host.deploy("1", "2", "3", "4")
    answer = host.record("4")
    assert (answer["changed"], answer["removed"]) == (False, [])


def test_check_mode_reports_and_changes_nothing(host: Host) -> None:
    host.deploy("1", "2", "3")
    host.write("4", own("4"))
    before = (host.releases, host.images)
    answer = host.record("4", check=True)
    assert answer["changed"]
    assert (host.releases, host.images) == before
    assert host.current == "releases/3"


def test_uninstall_keeps_only_images_of_others(host: Host) -> None:
    host.images = [*host.images, own("new", "base")]
    host.deploy("1", "2")
    host.record(keep=0, keep_images=[])
    assert host.releases == set()
    assert set(host.images) == set(OTHERS)


def test_links_name_the_current_and_the_previous_release(host: Host) -> None:
    host.deploy("1", "2")
    assert host.current == "releases/2"
    assert str((host.root / "previous").readlink()) == "releases/1"
    assert not host.run_record("2")["changed"]


def test_rollback_is_recorded_in_both_releases(host: Host) -> None:
    host.deploy("1", "2")
    host.run_record("1", rolls_back=True)
    assert host.current == "releases/1"
    assert str((host.root / "previous").readlink()) == "releases/2"
    assert (host.outcome("1"), host.outcome("2")) == ("deployed", "rolled_back")


def test_failure_is_recorded_without_a_change_of_the_links(host: Host) -> None:
    host.deploy("1")
    host.write("2", own("2"))
    host.run_record("2", outcome="failed", reason="it exited")
    assert host.current == "releases/1"
    assert host.outcome("2") == "failed"
    record = json.loads((host.root / "releases/2/record.json").read_text())
    assert (record["reason"], record["by"]) == ("it exited", "operator@controller")
