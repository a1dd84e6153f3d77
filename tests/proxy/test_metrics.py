"""Metrics through the proxy: of one instance each, for the addresses of Prometheus only."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.nginx import Answer

NAME = "ag-ui.example"
PROMETHEUS = "192.0.2.7"


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        port = self.connection.getsockname()[1]
        body = json.dumps([port, self.path, self.headers.get("Authorization")]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Site:
    def __init__(self, nginx: Nginx, https: int, state: Path, ports: list[int]) -> None:
        self.nginx, self.https, self.ports = nginx, https, ports
        self.maintenance = state / "maintenance"

    def ask(self, path: str, client: str = PROMETHEUS) -> Answer:
        head = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n"
        head += f"Authorization: Bearer token\r\nX-Forwarded-For: {client}\r\n\r\n"
        return self.nginx.send(self.https, head.encode())


@contextmanager
def started(folder: Path, **variables: Any) -> Iterator[Site]:
    """Start nginx with two instances that answer and one that does not."""
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    https = free_port()
    with ExitStack() as stack:
        servers = [ThreadingHTTPServer(("127.0.0.1", 0), Answering) for _ in range(2)]
        ports = [*(stack.enter_context(serving(server)) for server in servers), free_port()]
        state = Path(stack.enter_context(TemporaryDirectory()))
        # Workers of an nginx that root has started run as another user.
        state.chmod(0o755)
        site = {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": 0,
            "ag_ui_backend_ports": ports,
            # So that a test connects from any address.
            "ag_ui_trusted_proxies": ["127.0.0.1"],
            "__ag_ui_state_dir": str(state),
        }
        render_site(folder, site | variables)
        yield Site(stack.enter_context(Nginx(folder)), https, state, ports)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    addresses = ["192.0.2.0/28", "198.51.100.1", "2001:db8::/32"]
    folder = tmp_path_factory.mktemp("nginx")
    with started(folder, ag_ui_metrics_allowed_addresses=addresses) as running:
        yield running


@pytest.mark.parametrize("client", [PROMETHEUS, "198.51.100.1", "2001:db8::5"])
def test_prometheus_reads_each_instance(site: Site, client: str) -> None:
    for port in site.ports[:2]:
        for _ in range(3):
            answer = site.ask(f"/metrics/{port}", client)
            assert (answer.status, answer.json()) == (200, [port, "/metrics", "Bearer token"])


@pytest.mark.parametrize("client", ["192.0.2.16", "198.51.100.2", "2001:db9::1", "127.0.0.1"])
def test_others_find_nothing(site: Site, client: str) -> None:
    answer = site.ask(f"/metrics/{site.ports[0]}", client)
    assert answer.status == 404
    assert answer.json()["title"] == "Not Found"


def test_there_is_nothing_besides_the_instances(site: Site) -> None:
    for path in ("/metrics", "/metrics/", "/metrics/1", f"/metrics/{site.ports[0]}/x"):
        assert site.ask(path).status == 404


def test_no_instance_answers_for_another(site: Site) -> None:
    assert site.ask(f"/metrics/{site.ports[2]}").status == 502


def test_metrics_are_served_during_maintenance(site: Site) -> None:
    site.maintenance.touch()
    try:
        assert site.ask("/events").status == 503
        assert site.ask(f"/metrics/{site.ports[0]}").status == 200
    finally:
        site.maintenance.unlink()


def test_only_the_host_reads_them_by_default(tmp_path: Path) -> None:
    with started(tmp_path) as site:
        answers = {
            client: site.ask(f"/metrics/{site.ports[0]}", client).status
            for client in ("127.0.0.1", "::1", "127.0.0.2", PROMETHEUS, "2001:db8::5")
        }
    allowed = {"127.0.0.1": 200, "::1": 200}
    assert answers == allowed | dict.fromkeys(answers.keys() - allowed, 404)


def test_nobody_reads_them_with_an_empty_list(tmp_path: Path) -> None:
    with started(tmp_path, ag_ui_metrics_allowed_addresses=[]) as site:
        for client in (PROMETHEUS, "127.0.0.1"):
            assert site.ask(f"/metrics/{site.ports[0]}", client).status == 404
