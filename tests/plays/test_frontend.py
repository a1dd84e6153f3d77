"""The role installs the files of a frontend, and changes from one version to another together with nginx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.nginx import allow_reading, free_port, version
from tests.support.proxy_host import PROXY_KEY, ProxyHost
from tests.support.role_tasks import run_role_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.nginx import Answer
    from tests.support.playbook import Run

NAME = "ag-ui.example"
HOST = "hx-dev-server"
CERTIFICATE = [NAME, "localhost", "a", HOST, "127.0.0.1", "::1"]
SCRIPT = "/assets/index-{}aBc1234.js"


class Host(ProxyHost):
    """A folder in place of a host, with a build of a frontend on the controller."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        allow_reading(folder)
        self.https = free_port()
        self.ports: dict[str, Any] = {
            "ag_ui_https_port": self.https,
            "ag_ui_http_port": free_port(),
            "ag_ui_backend_ports": [free_port()],
        }
        for name in ("secrets", "current", "state"):
            (folder / name).mkdir()

    def build(self, mark: str) -> None:
        """Replace the build by another one, which is recognized by a capital letter."""
        dist = self.folder / "dist"
        for path in dist.rglob("*.*"):
            path.unlink()
        (dist / "assets").mkdir(parents=True, exist_ok=True)
        (dist / "index.html").write_text(mark)
        (self.folder / f"dist{SCRIPT.format(mark)}").write_text(mark)

    def run(self, tasks: tuple[str, ...], *arguments: str, **changes: Any) -> Run:
        own: dict[str, Any] = {
            "ansible_facts": {"hostname": "a", "fqdn": "a", "default_ipv4": {}},
            "ag_ui_server_name": NAME,
            "ag_ui_frontend_source": str(self.folder / "dist"),
            "__ag_ui_preflight": {
                "ipv6": False,
                "nginx": version(),
                "certificate": CERTIFICATE if (self.folder / "tls/server.crt").exists() else [],
                "running": [],
                "existing": [],
            },
            "__ag_ui_generated": {"values": {"proxy_key": PROXY_KEY}},
            "__ag_ui_config_dir": str(self.folder),
            "__ag_ui_state_dir": str(self.folder / "state"),
            "__ag_ui_proxy_nginx": str(self.folder),
            "__ag_ui_proxy_logs": str(self.folder / "logs"),
            "__ag_ui_letsencrypt": str(self.folder / "letsencrypt"),
            "__ag_ui_certbot_overrides": str(self.folder / "certbot.service.d"),
        }
        variables = {**own, **self.ports, **changes}
        return run_role_tasks(
            self.folder, tasks, variables, *arguments, environment=self.environment
        )

    def deploy(self, *arguments: str, **changes: Any) -> Run:
        return self.run(("validate_frontend", "proxy", "proxy_record"), *arguments, **changes)

    def get(self, path: str) -> Answer:
        request = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
        return self.nginx.send(self.https, request.encode())

    def page(self) -> str:
        return self.get("/").body.decode()

    def versions(self) -> list[str]:
        return [path.name for path in (self.folder / "state/frontend").glob("[0-9a-f]" * 16)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    host.build("A")
    yield host
    host.nginx.stop()


def test_second_run_changes_nothing(host: Host) -> None:
    first = host.deploy()
    assert first.code == 0, first.output
    assert (host.page(), host.get(SCRIPT.format("A")).body) == ("A", b"A")
    second = host.deploy()
    assert (second.code, second.changes) == (0, {HOST: 0}), second.output
    assert [task for task in second.tasks if "Pack the frontend" in task] == []
    assert [path.name for path in (host.folder / "state").glob("*.gz")] == []


def test_former_version_is_there_for_open_pages_and_for_a_rollback(host: Host) -> None:
    host.deploy()
    former = host.folder / "releases/former"
    former.parent.mkdir()
    (host.folder / "current").rename(former)
    (host.folder / "current").mkdir()
    host.build("B")
    second = host.deploy()
    assert second.code == 0, second.output
    assert host.page() == "B"
    assert [host.get(SCRIPT.format(mark)).body for mark in "AB"] == [b"A", b"B"]
    back = host.run(
        ("proxy_restore",), ag_ui_frontend_source="", __ag_ui_proxy_release_dir=str(former)
    )
    assert back.code == 0, back.output
    assert (host.page(), len(host.versions())) == ("A", 2)


def test_version_that_nginx_cannot_load_is_not_served(host: Host) -> None:
    host.deploy()
    host.build("B")
    (host.folder / "conf.d/other.conf").write_text("a mistake;")
    failed = host.deploy()
    assert failed.code != 0
    assert "nginx rejects the configuration" in failed.message
    assert host.page() == "A"
    (host.folder / "conf.d/other.conf").unlink()
    assert host.deploy().code == 0
    assert host.page() == "B"


def test_frontend_can_be_taken_away(host: Host) -> None:
    host.deploy()
    removed = host.run(("proxy",), ag_ui_frontend_source="")
    assert removed.code == 0, removed.output
    assert [task for task in removed.tasks if "version of the frontend" in task] == []
    # The backend answers, which does not run here.
    assert host.get("/").status == 502


def test_check_mode_installs_nothing(host: Host) -> None:
    (host.folder / "state").rmdir()
    done = host.run(("validate_frontend", "proxy_frontend"), "--check")
    assert done.code == 0, done.output
    assert done.changes[HOST] == 1
    assert not (host.folder / "state").exists()
