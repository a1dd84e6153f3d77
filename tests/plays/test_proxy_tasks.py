"""The role's tasks of the proxy, on a folder in place of a host."""

from __future__ import annotations

import json
import os
import signal
import ssl
import sys
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.certificates import sign
from tests.support.healthy_instance import Healthy
from tests.support.nginx import free_port, version
from tests.support.playbook import run_playbook
from tests.support.proxy_host import PROXY_KEY, ProxyHost
from tests.support.role_variables import DEFAULTS
from tests.support.site_playbook import REQUIRED_VARIABLES
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.playbook import Run

NAME = "ag-ui.example"
GET = b"GET / HTTP/1.1\r\nHost: ag-ui.example\r\nConnection: close\r\n\r\n"
# The names that the preflight finds in the certificate of the tasks.
CERTIFICATE = [NAME, "localhost", "a", "hx-dev-server", "127.0.0.1", "::1"]


class Host(ProxyHost):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.https, self.http, self.backend = free_port(), free_port(), free_port()
        # Created by the tasks of the secrets.
        (folder / "secrets").mkdir()

    def apply(
        self, certificate: list[str], *, tasks: tuple[str, ...] = ("proxy",), **changes: Any
    ) -> Run:
        """Run these task files of the role, on a host with a certificate for these names."""
        roles = [{"name": "ag_ui_deployment", "tasks_from": name} for name in tasks]
        run = [{"name": "Run them", "ansible.builtin.include_role": role} for role in roles]
        play = {"hosts": "all", "gather_facts": False, "tasks": run}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        own = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_facts": {"hostname": "a", "fqdn": "a", "default_ipv4": {}},
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": self.https,
            "ag_ui_http_port": self.http,
            "ag_ui_backend_ports": [self.backend],
            "__ag_ui_preflight": {
                "ipv6": False,
                "nginx": version(),
                "certificate": certificate,
                "running": [],
                "existing": [],
            },
            "__ag_ui_generated": {"values": {"proxy_key": PROXY_KEY}},
            "__ag_ui_config_dir": str(self.folder),
            "__ag_ui_state_dir": str(self.folder),
            "__ag_ui_proxy_nginx": str(self.folder),
            "__ag_ui_proxy_logs": str(self.folder / "logs"),
            "__ag_ui_letsencrypt": str(self.folder / "letsencrypt"),
            "__ag_ui_certbot_overrides": str(self.folder / "certbot.service.d"),
        }
        return run_playbook(
            *("--inventory", "hx-dev-server,"),
            *("--extra-vars", json.dumps(DEFAULTS | REQUIRED_VARIABLES | own | changes)),
            self.folder / "play.yml",
            environment=self.environment,
        )


@pytest.fixture
def instance() -> Iterator[int]:
    """Start a healthy instance; yield its port."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Healthy)) as port:
        yield port


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.nginx.stop()


def test_new_host_serves_and_a_second_run_changes_nothing(host: Host, instance: int) -> None:
    first = host.apply([], ag_ui_backend_ports=[instance])
    assert first.code == 0, first.output
    assert PROXY_KEY not in first.output
    forged = GET.replace(b"Connection", b"X-AG-UI-Proxy-Key: forged\r\nConnection")
    answer = host.nginx.send(host.https, forged)
    assert answer.status == 200
    assert "max-age=31536000" in answer.headers["strict-transport-security"]
    # Only root and the backend may read the key that authenticates the proxy.
    assert Healthy.keys[-1] == PROXY_KEY
    readable = [
        path for path in host.folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o44
    ]
    assert [path for path in readable if PROXY_KEY in path.read_text(errors="replace")] == []
    second = host.apply(CERTIFICATE, ag_ui_backend_ports=[instance])
    assert second.code == 0, second.output
    assert second.changes == {"hx-dev-server": 0}, second.output


def proxy_check(run: Run) -> dict[str, str]:
    """Return what the verification says of the proxy."""
    [checks] = [one.result["checks"] for one in run.results if "checks" in one.result]
    [found] = [check for check in checks if check["name"] == "proxy"]
    return dict(found)


def test_provided_certificate_is_verified_against_its_authority(host: Host, instance: int) -> None:
    root = sign("Root")
    middle = sign("Intermediate", root)
    leaf = sign("leaf", middle, hosts=[NAME])
    given = host.folder / "given"
    given.mkdir()
    texts = {"certificate": leaf.pem + middle.pem, "key": leaf.key_pem, "ca": root.pem}
    for name, text in texts.items():
        (given / name).write_text(text)
    provided = {f"ag_ui_tls_{name}": str(given / name) for name in texts}
    provided |= {"ag_ui_tls_mode": "provided"}
    common: dict[str, Any] = {"ag_ui_backend_ports": [instance]}
    first = host.apply([], tasks=("proxy", "verify"), **common, **provided)
    assert proxy_check(first)["status"] == "ok", first.output
    assert ssl.get_server_certificate(("127.0.0.1", host.https)) == leaf.pem
    # A browser would refuse the certificate without its intermediates.
    (host.folder / "tls/server.crt").write_text(leaf.pem)
    os.kill(host.nginx.pid or 0, signal.SIGHUP)
    second = host.apply([], tasks=("verify",), **common, **provided)
    assert second.code != 0, second.output
    assert "unable to get local issuer certificate" in proxy_check(second)["detail"]
