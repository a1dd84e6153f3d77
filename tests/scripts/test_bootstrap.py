"""What script/bootstrap installs, and what it tells a user without root rights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scripts.conftest import Checkout


@pytest.fixture
def bare(checkout: Checkout) -> Checkout:
    """A machine without the packages, without a working container engine and without sudo."""
    checkout.stub("dpkg-query", "exit 1")
    checkout.stub("docker", "exit 1")
    checkout.stub("sudo", "exit 1")
    checkout.stub("apt-get", "echo apt-get was run >&2; exit 99")
    return checkout


def test_names_missing_packages_and_how_to_get_them(bare: Checkout) -> None:
    done = bare.run("script/bootstrap", unprivileged=True)
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert "sudo apt-get install --no-install-recommends age" in done.stderr
    assert "usermod -aG docker" in done.stderr
    assert "apt-get was run" not in done.stderr


def test_checks_need_no_engine(bare: Checkout) -> None:
    done = bare.run("script/bootstrap", "tools", unprivileged=True)
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert "docker" not in done.stderr
    assert "mmdebstrap" not in done.stderr


def test_tests_and_measurements_have_a_browser(bare: Checkout) -> None:
    assert "chromium" not in bare.run("script/bootstrap", "tools", unprivileged=True).stderr
    for part in ("client", "bench"):
        done = bare.run("script/bootstrap", part, unprivileged=True)
        assert done.returncode == 1
        assert "chromium" in done.stderr


def test_names_only_the_engine_where_the_packages_are_there(bare: Checkout) -> None:
    bare.stub("dpkg-query", "printf installed")
    done = bare.run("script/bootstrap", unprivileged=True)
    assert done.returncode == 1
    assert "packages:" not in done.stderr
    assert "usermod -aG docker" in done.stderr


def test_an_engine_from_another_package_is_kept(bare: Checkout) -> None:
    bare.stub("dockerd", "exit 1")
    done = bare.run("script/bootstrap", unprivileged=True)
    assert done.returncode == 1
    assert "iptables" in done.stderr
    assert "docker.io" not in done.stderr


def test_a_started_engine_does_not_hold_the_output_open(checkout: Checkout) -> None:
    checkout.stub("sudo", 'shift; exec "$@"')
    checkout.stub("dockerd", "touch started; exec sleep 30")
    checkout.stub("systemctl", "touch started")
    checkout.stub("docker", "test -e started")
    began = time.monotonic()
    done = checkout.shell(
        "source script/files/packages.sh; source script/files/engine.sh; run_step engine start_engine"
    )
    assert done.returncode == 0, done.stderr
    # The engine runs for 30 s.
    assert time.monotonic() - began < 20


def test_says_that_python_is_too_old(bare: Checkout) -> None:
    bare.stub("dpkg-query", "printf installed")
    for version in ("3", "3.11", "3.12", "3.13", "3.14"):
        bare.stub(f"python{version}", "exit 1")
    done = bare.run("script/bootstrap", "tools")
    assert done.returncode == 1
    assert "Python 3.11 or later is needed" in done.stderr


def test_an_incomplete_virtual_environment_is_recreated(bare: Checkout) -> None:
    complete_venv(bare)
    (bare.path / ".venv" / ".complete").unlink()
    bare.stub("python3", 'test "$1" = -c || { echo "$@" >>calls; exit 1; }')
    done = bare.run("script/bootstrap", "tools")
    assert done.returncode == 1
    assert calls(bare) == [f"-m venv --clear {bare.path}/.venv"]


def test_uv_is_installed_by_its_hashes(bare: Checkout) -> None:
    complete_venv(bare)
    (bare.path / ".venv" / ".complete").unlink()
    bare.stub("python3", 'echo "$@" >>calls')
    done = bare.run("script/bootstrap", "tools")
    assert done.returncode == 0, done.stderr
    [install] = [call for call in calls(bare) if call.startswith("-m pip install")]
    assert "--require-hashes" in install
    assert install.endswith("-r requirements/uv.txt")


def test_a_complete_virtual_environment_needs_no_network(bare: Checkout) -> None:
    complete_venv(bare)
    for _ in range(2):
        done = bare.run("script/bootstrap", "tools")
        assert done.returncode == 0, done.stderr
    assert len(calls(bare)) == 2
    for call in calls(bare):
        assert call.startswith("pip sync --require-hashes ")
        assert call.endswith(" --offline")


# Fails offline, and then as the file fails says.
UV = """echo "$@" >>calls; mkdir -p .cache/gateway .cache/gateway-machine
case "$*" in pip*requirements/$(cat changed)*--offline) exit 2 ;; pip*requirements/$(cat changed)*) [ ! -e fails ] ;; esac"""


@pytest.mark.parametrize(
    ("part", "requirements", "folder", "recreated"),
    [
        ("tools", "dev.txt", ".venv", "-m venv --clear"),
        ("gateway", "gateway.txt", ".cache/gateway", "venv --clear"),
        ("scenarios", "gateway.txt", ".cache/gateway-machine", ""),
    ],
)
def test_changed_packages_are_downloaded(
    bare: Checkout, part: str, requirements: str, folder: str, recreated: str
) -> None:
    """After a failed or interrupted installation, the next run starts with an empty folder."""
    complete_venv(bare)
    add_client(bare, "agui_client")
    bare.stub("npm", 'mkdir -p "$3/node_modules"')
    bare.stub("python3", 'test "$1" = -c || echo "$@" >>calls')
    bare.stub("uv", UV)
    (bare.path / "changed").write_text(requirements)
    complete = bare.path / folder / ".complete"
    left = bare.path / folder / "half-a-package"

    (bare.path / "fails").touch()
    assert bare.run("script/bootstrap", part).returncode == 1
    assert not complete.exists()
    left.touch()
    (bare.path / "fails").unlink()
    (bare.path / "calls").unlink()
    done = bare.run("script/bootstrap", part)
    assert done.returncode == 0, done.stderr
    assert complete.exists()
    assert any(call.startswith(recreated) for call in calls(bare))
    # The stub of uv clears nothing.
    assert left.exists() == bool(recreated)
    [offline, online] = [call for call in calls(bare) if f"requirements/{requirements}" in call]
    assert offline == f"{online} --offline"


def test_a_client_is_installed_when_its_lock_has_changed(bare: Checkout) -> None:
    complete_venv(bare)
    bare.stub("npm", 'echo "npm $@" >>calls; mkdir -p "$3/node_modules"')
    clients = [
        add_client(bare, name)
        for name in ("agui_client", "api_client", "copilotkit", "upload_client", "vite_frontend")
    ]
    for lock, installed in (("", 5), ("", 5), ("another", 6)):
        (clients[1] / "package-lock.json").write_text(lock)
        done = bare.run("script/bootstrap", "client")
        assert done.returncode == 0, done.stderr
        assert sum(call.startswith("npm ci --prefix") for call in calls(bare)) == installed
    assert bare.run("script/bootstrap", "tools").returncode == 0
    assert sum(call.startswith("npm ci --prefix") for call in calls(bare)) == 6


def complete_venv(checkout: Checkout) -> None:
    """Make the packages and the virtual environment seem to be installed."""
    checkout.stub("dpkg-query", "printf installed")
    checkout.stub("python3", 'test "$1" = -c')
    checkout.stub("uv", 'echo "$@" >>calls')
    programs = checkout.path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, program in (("python", "python3"), ("uv", "uv"), ("npm", "npm")):
        (programs / name).symlink_to(checkout.programs / program)
    (checkout.path / ".venv" / ".complete").touch()


def add_client(checkout: Checkout, name: str) -> Path:
    client = checkout.path / "tests" / name
    client.mkdir(parents=True)
    (client / "package-lock.json").touch()
    return client


def calls(checkout: Checkout) -> list[str]:
    return (checkout.path / "calls").read_text().splitlines()


def test_image_of_a_machine_is_built_for_known_releases_only(bare: Checkout) -> None:
    done = bare.run("script/bootstrap", "machine", "sid")
    assert done.returncode == 2
    assert "unknown release 'sid'" in done.stderr


@pytest.mark.parametrize(
    ("release", "sources"),
    [
        (
            "bookworm",
            ["deb http://a/debian bookworm main", "deb http://a/s bookworm-security main"],
        ),
        ("trixie", ["deb http://a/debian trixie main", "deb http://a/s trixie-security main"]),
        # A machine without sources of Ubuntu: mmdebstrap uses its defaults.
        ("noble", []),
    ],
)
def test_sources_of_a_machine_are_those_of_this_machine(
    checkout: Checkout, release: str, sources: list[str]
) -> None:
    checkout.stub(
        "apt-get",
        """case "$*" in *Debian*) echo 'deb http://a/debian bookworm main'
        echo 'deb http://a/s bookworm-security main';; esac""",
    )
    done = checkout.shell('source script/files/images.sh; sources_of "$1"', release)
    assert done.stdout.splitlines() == sources
