"""The record of the packages that the role installs, and their removal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Lists what is in the file `installed`, a package per line with those that it needs.
DPKG = """#!/bin/sh
while read -r name rest; do echo "installed $name"; done <"$STATE/installed"
echo "config-files removed-before"
"""
# Removes a package with all that need it, as apt-get does.
APT = """#!/bin/sh
simulate=
[ "$1" != --simulate ] || { simulate=1; shift; }
shift 2
gone=" $* " before=
while [ "$gone" != "$before" ]; do
  before=$gone
  while read -r name needed; do
    for one in $needed; do
      case $gone in *" $one "*) case $gone in *" $name "*) ;; *) gone="$gone$name " ;; esac ;; esac
    done
  done <"$STATE/installed"
done
for one in $gone; do echo "Purg $one [1.0]"; done
[ -z "$simulate" ] || exit 0
echo "$gone" >>"$STATE/purged"
for one in $gone; do sed -i "/^$one\\\\b/d" "$STATE/installed"; done
"""


class Host:
    """A folder with a package database."""

    def __init__(self, folder: Path, **packages: str) -> None:
        self.folder = folder
        self.record = folder / "state/packages"
        for name, text in {"dpkg-query": DPKG, "apt-get": APT}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.install(packages)

    def install(self, packages: Mapping[str, str]) -> None:
        """Install packages; each has the names of those that it needs."""
        with (self.folder / "installed").open("a") as file:
            file.writelines(f"{name} {needs}\n" for name, needs in packages.items())

    def run(self, state: str, **options: Any) -> dict[str, Any]:
        arguments = {"record": str(self.record), "state": state, **options}
        environment = {"PATH": f"{self.folder}:{os.environ['PATH']}", "STATE": str(self.folder)}
        return run_module("ag_ui_packages", arguments, self.folder, environment)

    def deploy(self, packages: Mapping[str, str]) -> None:
        self.run("before")
        self.install(packages)
        self.run("recorded")

    @property
    def installed(self) -> set[str]:
        return {line.split()[0] for line in (self.folder / "installed").read_text().splitlines()}

    @property
    def recorded(self) -> list[str]:
        return self.record.read_text().split()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path, bash="", nginx="")
    host.deploy({"curl": "libcurl", "libcurl": ""})
    return host


def test_only_what_an_installation_adds_is_recorded(host: Host) -> None:
    assert host.recorded == ["curl", "libcurl"]
    host.deploy({"openssl": ""})
    assert host.recorded == ["curl", "libcurl", "openssl"]


def test_next_run_completes_the_record_of_an_interrupted_one(host: Host) -> None:
    host.run("before")
    host.install({"openssl": ""})
    # The run ends here; the next one finds nothing missing, or installs the rest.
    host.run("before")
    host.install({"docker.io": ""})
    host.run("recorded")
    assert host.recorded == ["curl", "docker.io", "libcurl", "openssl"]


def test_run_without_an_installation_records_nothing(host: Host) -> None:
    host.install({"vim": ""})
    host.run("recorded")
    assert host.recorded == ["curl", "libcurl"]


def test_only_recorded_packages_are_removed(host: Host) -> None:
    host.install({"vim": ""})
    done = host.run("absent")
    assert (done["changed"], done["removed"], done["kept"]) == (True, ["curl", "libcurl"], [])
    assert host.installed == {"bash", "nginx", "vim"}
    assert not host.record.exists()
    assert not host.run("absent")["changed"]


def test_package_that_another_one_needs_is_kept(host: Host) -> None:
    host.install({"git": "libcurl"})
    done = host.run("absent")
    assert (done["removed"], done["kept"]) == (["curl"], ["libcurl"])
    assert host.installed == {"bash", "nginx", "libcurl", "git"}


def test_kept_packages_keep_what_they_need(host: Host) -> None:
    host.deploy({"docker.io": "containerd", "containerd": "runc", "runc": ""})
    done = host.run("absent", keep=["docker.io", "not-installed"])
    assert done["removed"] == ["curl", "libcurl"]
    assert done["kept"] == ["containerd", "docker.io", "runc"]


def test_check_mode_removes_nothing(host: Host) -> None:
    done = host.run("absent", _ansible_check_mode=True)
    assert (done["changed"], done["removed"]) == (True, ["curl", "libcurl"])
    assert not (host.folder / "purged").exists()
    assert host.record.exists()


def test_failure_of_apt_is_reported_and_keeps_the_record(host: Host) -> None:
    (host.folder / "apt-get").write_text("#!/bin/sh\necho 'the database is locked' >&2\nexit 100\n")
    done = host.run("absent")
    assert done["failed"]
    assert "the database is locked" in done["msg"]
    assert host.recorded == ["curl", "libcurl"]
