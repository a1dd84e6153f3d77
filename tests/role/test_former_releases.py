"""The releases that are kept, and that everything of former ones goes with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module

if TYPE_CHECKING:
    from pathlib import Path

# An engine as far as this needs it: the images are lines of a file.
DOCKER = """#!/bin/sh
case "$1 $2 $*" in
"image rm "*) grep -vxF "$3" "$STATE/images" >"$STATE/left"; mv "$STATE/left" "$STATE/images" ;;
*label=ag-ui.stage*) grep '^layer-' "$STATE/images" ;;
"image ls "*) grep ':' "$STATE/images" ;;
esac
"""
OTHERS = ["postgres:17", "shield-ag-ui-backend-of-somebody:1"]


def own(name: str) -> str:
    return f"shield-ag-ui-backend:{name}"


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
        """What a deployment writes before it knows whether the release is any good."""
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
            "keep_images": ["shield-ag-ui-base:new"],
            "layer_label": "ag-ui.stage",
            "_ansible_check_mode": check,
        }
        environment = {
            "STATE": str(self.root),
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
        }
        answer = run_module("ag_ui_releases", arguments | changes, self.root, environment)
        assert not answer.get("failed"), answer
        deployed = self.root / "releases" / release / "deployed"
        if release and deployed.exists():
            # Moments between two deployments, which a test does not wait for.
            self.clock += 1
            os.utime(deployed, (self.clock, self.clock))
        return answer

    def deploy(self, *releases: str) -> None:
        for release in releases:
            self.write(release, own(release))
            self.record(release)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_last_three_stay_with_their_images(host: Host) -> None:
    host.deploy("1", "2", "3", "4", "5")
    assert host.releases == {"3", "4", "5"}
    assert set(host.images) == {*OTHERS, own("3"), own("4"), own("5"), "layer-new"}
    assert host.current == "releases/5"


def test_a_release_that_was_refused_goes_and_takes_no_place(host: Host) -> None:
    host.deploy("1", "2", "3")
    host.write("refused", own("refused"))
    assert host.record("3")["removed"] == ["refused", own("refused")]
    assert host.releases == {"1", "2", "3"}


def test_a_release_that_comes_back_is_the_newest(host: Host) -> None:
    host.deploy("1", "2", "3")
    host.record("1")
    host.deploy("4")
    assert host.releases == {"1", "3", "4"}


def test_an_image_that_two_releases_share_stays_for_the_second(host: Host) -> None:
    for release in ("1", "2", "3", "4"):
        host.write(release, own("same"))
        host.record(release)
    assert host.releases == {"2", "3", "4"}
    assert own("same") in host.images


def test_an_image_of_a_registry_goes_by_the_release_that_named_it(host: Host) -> None:
    host.write("1", "registry.example/backend:1")
    host.record("1")
    host.deploy("2", "3", "4")
    assert "registry.example/backend:1" not in host.images


def test_only_the_base_image_of_the_last_build_stays(host: Host) -> None:
    host.images = [*host.images, "shield-ag-ui-base:old", "shield-ag-ui-base:new"]
    host.deploy("1")
    assert [image for image in host.images if "base" in image] == ["shield-ag-ui-base:new"]


def test_a_second_run_changes_nothing(host: Host) -> None:
    host.deploy("1", "2", "3", "4")
    answer = host.record("4")
    assert (answer["changed"], answer["removed"]) == (False, [])


def test_a_dry_run_tells_and_changes_nothing(host: Host) -> None:
    host.deploy("1", "2", "3")
    host.write("4", own("4"))
    before = (host.releases, host.images)
    answer = host.record("4", check=True)
    assert answer["changed"]
    assert (host.releases, host.images) == before
    assert host.current == "releases/3"


def test_an_uninstall_leaves_only_what_is_not_ours(host: Host) -> None:
    host.images = [*host.images, "shield-ag-ui-base:new"]
    host.deploy("1", "2")
    host.record(keep=0, keep_images=[])
    assert host.releases == set()
    assert set(host.images) == set(OTHERS)
