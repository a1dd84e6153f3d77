"""When certbot is run and what a failure means, with a stub of certbot; tests/acme has the real one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module
from tests.support.certificates import sign

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["ag-ui.example", "www.ag-ui.example"]
SERVER = "https://acme.example/directory"
FAILURE = "The server does not issue."


class Host:
    """A folder with the files of certbot, and a stub that records its arguments and fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = f"{folder}:{os.environ['PATH']}"
        program = folder / "certbot"
        program.write_text(
            f'#!/bin/sh\necho "$AG_UI_DEPLOYMENT $*" >>{folder}/calls\necho "{FAILURE}"\nexit 1\n'
        )
        program.chmod(0o755)

    def add_certificate(self, begins: int, ends: int, server: str = SERVER) -> None:
        """Add what certbot has, valid between these days from now."""
        leaf = sign("leaf", sign("Root"), hosts=NAMES, begins=begins, ends=ends)
        for name in ("renewal", "live/ag-ui"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "live/ag-ui/fullchain.pem").write_text(leaf.pem)
        (self.folder / "renewal/ag-ui.conf").write_text(f"[renewalparams]\nserver = {server}\n")

    def run(self, **options: Any) -> dict[str, Any]:
        given = {
            "name": "ag-ui",
            "configuration": str(self.folder),
            "domains": NAMES,
            "directory": SERVER,
            "webroot": "/webroot",
            "hook": "/hook",
            "stamp": str(self.folder / "stamp"),
        }
        return run_module("ag_ui_acme", given | options, self.folder, {"PATH": self.path})

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_certbot_gets_all_it_needs(host: Host) -> None:
    done = host.run(email="operator@ag-ui.example")
    assert done["failed"]
    assert FAILURE in done["msg"]
    assert host.calls == [
        (
            "1 certonly --agree-tos --webroot --webroot-path /webroot --key-type ecdsa --deploy-hook /hook"
            " --renew-with-new-domains --keep-until-expiring --domain ag-ui.example --domain www.ag-ui.example"
            f" --server {SERVER} --email operator@ag-ui.example --no-eff-email --non-interactive --cert-name ag-ui"
        )
    ]


def test_defaults_of_certbot_are_used_where_nothing_is_set(host: Host) -> None:
    host.run(directory="")
    [call] = host.calls
    assert "--server" not in call
    assert "--register-unsafely-without-email" in call


@pytest.mark.parametrize(("begins", "ends"), [(-1, 89), (-50, 31), (-6, 4)])
def test_certificate_that_fits_is_kept_without_certbot(host: Host, begins: int, ends: int) -> None:
    host.add_certificate(begins, ends)
    done = host.run()
    assert not done["changed"]
    assert host.calls == []


@pytest.mark.parametrize(("begins", "ends"), [(-61, 29), (-8, 2)])
def test_failed_renewal_of_a_valid_certificate_is_a_warning(
    host: Host, begins: int, ends: int
) -> None:
    host.add_certificate(begins, ends)
    done = host.run()
    assert "failed" not in done
    assert not done["changed"]
    assert FAILURE in str(done["warnings"])
    assert len(host.calls) == 1


def test_failed_renewal_of_an_expired_certificate_is_an_error(host: Host) -> None:
    host.add_certificate(-91, -1)
    assert FAILURE in host.run()["msg"]


@pytest.mark.parametrize(
    "wanted",
    [{"domains": NAMES[:1]}, {"directory": "https://other.example/directory"}],
    ids=["names", "server"],
)
def test_other_names_or_another_server_need_a_new_certificate(
    host: Host, wanted: dict[str, Any]
) -> None:
    host.add_certificate(-1, 89)
    assert FAILURE in host.run(**wanted)["msg"]
    assert ("--force-renewal" in host.calls[0]) is ("directory" in wanted)


@pytest.mark.parametrize(("former", "renews"), [("", False), (SERVER, True), (None, False)])
def test_default_server_replaces_another_one(
    host: Host, former: str | None, *, renews: bool
) -> None:
    host.add_certificate(-1, 89, "https://default.example/directory")
    if former is not None:
        (host.folder / "stamp").write_text(former)
    host.run(directory="")
    assert ["--force-renewal" in call for call in host.calls] == ([True] if renews else [])


def test_check_mode_runs_nothing(host: Host) -> None:
    assert host.run(_ansible_check_mode=True)["changed"]
    host.add_certificate(-1, 89)
    assert not host.run(_ansible_check_mode=True)["changed"]
    assert host.run(_ansible_check_mode=True, state="absent")["changed"]
    assert host.calls == []


def test_nothing_is_deleted_where_there_is_nothing(host: Host) -> None:
    assert not host.run(state="absent")["changed"]
    assert host.calls == []


def test_files_for_acme_are_removed_with_the_certificate(host: Host) -> None:
    (host.folder / "webroot/.well-known").mkdir(parents=True)
    (host.folder / "hook").touch()
    files = [str(host.folder / name) for name in ("webroot", "hook", "none")]
    assert host.run(state="absent", files=files)["changed"]
    assert not (host.folder / "webroot").exists()
    assert not (host.folder / "hook").exists()
    assert not host.run(state="absent", files=files)["changed"]


def test_missing_certbot_is_reported(host: Host) -> None:
    host.path = "/nonexistent"
    assert "certbot does not start" in host.run()["msg"]
