"""Maintenance closes the site without a reload; health checks still reach the instances."""

from __future__ import annotations

import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.nginx import Answer

NAME = "ag-ui.example"
PAGE = "https://page.example"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"instance": True, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_OPTIONS = do_GET  # noqa: N815 - the name that the server calls

    def log_message(self, *_: object) -> None:
        pass


class Site:
    def __init__(self, state: Path, nginx: Nginx, port: int) -> None:
        self.nginx, self.port = nginx, port
        self.flag = state / "maintenance"

    def ask(self, path: str, accept: str = "*/*", method: str = "GET") -> Answer:
        head = f"{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n"
        head += f"Accept: {accept}\r\nOrigin: {PAGE}\r\nContent-Length: 0\r\n\r\n"
        return self.nginx.send(self.port, head.encode())


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    https = free_port()
    with (
        serving(ThreadingHTTPServer(("127.0.0.1", 0), Answering)) as backend,
        TemporaryDirectory() as state,
    ):
        # Workers of an nginx that root has started run as another user.
        Path(state).chmod(0o755)
        render_site(
            folder,
            {
                "ag_ui_server_name": NAME,
                "ag_ui_https_port": https,
                "ag_ui_http_port": 0,
                "ag_ui_backend_ports": [backend],
                "ag_ui_cors_origins": [PAGE],
                "__ag_ui_state_dir": state,
            },
        )
        with Nginx(folder) as nginx:
            yield Site(Path(state), nginx, https)


@pytest.fixture
def site(started: Site) -> Iterator[Site]:
    started.flag.touch()
    yield started
    started.flag.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "text/event-stream", f"application/json,{BROWSER}", ""]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/events"),
        ("POST", "/auth/login"),
        ("GET", "/healthy"),
        ("GET", "/console/assets/app.js"),
    ],
)
def test_request_gets_a_problem_document(site: Site, accept: str, method: str, path: str) -> None:
    answer = site.ask(path, accept, method)
    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:shield-ag-ui:problem:maintenance"
    assert problem["status"] == 503
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["retry-after"] == "60"
    # A page can tell its user.
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("path", "accept"), [("/docs", BROWSER), ("/docs", "TEXT/HTML"), ("/console/jobs", BROWSER)]
)
def test_browser_gets_a_page(site: Site, path: str, accept: str) -> None:
    answer = site.ask(path, accept)
    assert answer.status == 503
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>Maintenance</h1>" in answer.body
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["vary"] == "Accept, Origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/health/ready"),
        ("GET", "/health/live?x=1"),
        ("OPTIONS", "/auth/login"),
    ],
)
def test_health_checks_and_preflights_reach_the_instances(
    site: Site, method: str, path: str
) -> None:
    answer = site.ask(path, BROWSER, method)
    assert (answer.status, answer.json()) == (200, {"instance": True, "path": path})


def test_invalid_requests_and_metrics_are_refused_as_before(site: Site) -> None:
    assert site.ask("/health/%00").status == 400
    assert site.ask("/.problem/maintenance-html").status == 404


def test_maintenance_survives_a_reload_and_ends_without_one(site: Site) -> None:
    os.kill(site.nginx.pid or 0, signal.SIGHUP)
    for _ in range(5):
        assert site.ask("/events").status == 503
    site.flag.unlink()
    assert site.ask("/events").status == 200


def test_log_has_the_status_that_the_client_got(site: Site) -> None:
    id_ = site.ask("/events").headers["x-request-id"]
    lines = [json.loads(line) for line in site.nginx.log("ag-ui.access.log").splitlines()]
    [line] = [line for line in lines if line["request_id"] == id_]
    assert (line["path"], line["status"]) == ("/events", 503)
