"""What script/bootstrap tells a user without root rights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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
    assert "sudo apt-get install --no-install-recommends ca-certificates" in done.stderr
    assert "usermod -aG docker" in done.stderr
    assert "apt-get was run" not in done.stderr


def test_checks_need_no_engine(bare: Checkout) -> None:
    done = bare.run("script/bootstrap", "tools", unprivileged=True)
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert "docker" not in done.stderr
    assert "mmdebstrap" not in done.stderr


def test_the_clients_of_the_tests_are_a_browser_too(bare: Checkout) -> None:
    assert "chromium" not in bare.run("script/bootstrap", "tools", unprivileged=True).stderr
    done = bare.run("script/bootstrap", "client", unprivileged=True)
    assert done.returncode == 1
    assert re.search("chromium-(chrome)?driver", done.stderr)


def test_names_only_the_engine_where_the_packages_are_there(bare: Checkout) -> None:
    bare.stub("dpkg-query", "printf installed")
    done = bare.run("script/bootstrap", unprivileged=True)
    assert done.returncode == 1
    assert "packages:" not in done.stderr
    assert "usermod -aG docker" in done.stderr


def test_says_that_python_is_too_old(bare: Checkout) -> None:
    bare.stub("dpkg-query", "printf installed")
    for version in ("3", "3.11", "3.12", "3.13", "3.14"):
        bare.stub(f"python{version}", "exit 1")
    done = bare.run("script/bootstrap", "tools")
    assert done.returncode == 1
    assert "Python 3.11 or later is needed" in done.stderr


def test_a_half_made_virtual_environment_is_made_anew(bare: Checkout) -> None:
    bare.stub("dpkg-query", "printf installed")
    bare.stub("python3", 'test "$1" = -c || { echo "$@" >>calls; exit 1; }')
    (bare.path / ".venv" / "bin").mkdir(parents=True)
    (bare.path / ".venv" / "bin" / "python").symlink_to(bare.programs / "python3")
    done = bare.run("script/bootstrap", "tools")
    assert done.returncode == 1
    calls = (bare.path / "calls").read_text().splitlines()
    assert calls[-1] == f"-m venv --clear {bare.path}/.venv"


def test_a_complete_virtual_environment_is_left_alone(bare: Checkout) -> None:
    bare.stub("dpkg-query", "printf installed")
    complete_venv(bare)
    assert bare.run("script/bootstrap", "tools").returncode == 0


def test_a_client_is_installed_when_its_lock_has_changed(bare: Checkout) -> None:
    bare.stub("dpkg-query", "printf installed")
    complete_venv(bare)
    bare.stub("npm", 'echo "$@" >>calls; mkdir -p "$3/node_modules"')
    (bare.path / ".venv" / "bin" / "npm").symlink_to(bare.programs / "npm")
    clients = [bare.path / "tests" / name for name in ("agui_client", "api_client", "copilotkit")]
    for client in clients:
        client.mkdir(parents=True)
        for name in (".npmrc", "package.json", "package-lock.json"):
            (client / name).touch()
    for lock, calls in (("", 3), ("", 3), ("another", 4)):
        (clients[1] / "package-lock.json").write_text(lock)
        done = bare.run("script/bootstrap", "client")
        assert done.returncode == 0, done.stderr
        assert (bare.path / "calls").read_text().count("ci --prefix") == calls
    assert bare.run("script/bootstrap", "tools").returncode == 0
    assert (bare.path / "calls").read_text().count("ci --prefix") == 4


def complete_venv(checkout: Checkout) -> None:
    checkout.stub("python3", 'test "$1" = -c')
    (checkout.path / ".venv" / "bin").mkdir(parents=True)
    (checkout.path / ".venv" / "bin" / "python").symlink_to(checkout.programs / "python3")
    stamp = checkout.shell('sha256sum <requirements/dev.txt >"$venv/.requirements.sha256"')
    assert stamp.returncode == 0
