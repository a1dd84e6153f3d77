"""Pages of the backend: their policy, their limit, and their assets during a release."""

from __future__ import annotations

import http.client
import ssl
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "ag-ui.example"
POLICY = "default-src 'none'; script-src 'self'; base-uri 'none'"
STRICTEST = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
BURST = 4
ONCE = (
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "Permissions-Policy",
    "X-Request-ID",
)


def instance(asset: str) -> ThreadingHTTPServer:
    """Return a backend that has all headers itself, and one asset."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            is_missing = "/assets/" in self.path and not self.path.endswith(asset)
            is_unchanged = "If-None-Match" in self.headers
            self.send_response(404 if is_missing else 304 if is_unchanged else 200)
            if self.path.startswith("/console/") and not is_missing:
                for name in ONCE[1:-1]:
                    self.send_header(name, POLICY if name == ONCE[4] else "of the backend")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Answering)


class Site:
    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        context = ssl._create_unverified_context()  # noqa: S323 - self-signed
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context)
        connection.request("GET", path, headers={"Host": NAME, **(headers or {})})
        with connection.getresponse() as response:
            response.read()
        connection.close()
        return response


def started(folder: str, tmp: pytest.TempPathFactory, stack: ExitStack, rate: int) -> Site:
    """Start nginx with two instances, of which each has one asset."""
    path = tmp.mktemp(folder)
    make_folders(path)
    make_certificate(path / "tls", NAME)
    https = free_port()
    render_site(
        path,
        {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": 0,
            "ag_ui_backend_ports": [
                stack.enter_context(serving(instance(name))) for name in ("one.js", "two.js")
            ],
            "ag_ui_request_rate": rate,
        },
    )
    stack.enter_context(Nginx(path))
    return Site(https)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        yield started("nginx", tmp_path_factory, stack, 1000)


@pytest.mark.parametrize(
    ("path", "headers", "status", "policy"),
    [
        ("/console/", {}, 200, POLICY),
        # Browsers replace the headers of the stored page by these.
        ("/console/", {"If-None-Match": '"x"'}, 304, POLICY),
        ("/console/assets/one.js", {}, 200, POLICY),
        ("/console/assets/nothing.js", {}, 404, STRICTEST),
        ("/api/jobs", {}, 200, STRICTEST),
        ("/metrics", {}, 404, STRICTEST),
    ],
)
def test_each_security_header_is_sent_once(
    site: Site, path: str, headers: dict[str, str], status: int, policy: str
) -> None:
    answer = site.ask(path, headers)
    assert answer.status == status
    sent = {name: answer.headers.get_all(name, []) for name in ONCE}
    assert {name: len(values) for name, values in sent.items()} == dict.fromkeys(ONCE, 1)
    assert sent["Content-Security-Policy"] == [policy]
    assert sent["X-Frame-Options"] == ["DENY"]


def test_asset_of_one_instance_is_found_at_any_time(site: Site) -> None:
    """During a release, a page may be of another instance than the one that is asked for assets."""
    for _ in range(4):
        for name in ("one.js", "two.js"):
            assert site.ask(f"/console/assets/{name}").status == 200


def test_pages_have_a_limit_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ExitStack() as stack:
        site = started("limited", tmp_path_factory, stack, 1)
        paths = ("/console/", "/console/assets/one.js", "/docs", "/redoc/x.js", "/console")
        asked = (site.ask(path).status for _ in range(100) for path in paths)
        assert 429 in asked
        assert [site.ask("/api/jobs").status for _ in range(BURST)] == [200] * BURST
