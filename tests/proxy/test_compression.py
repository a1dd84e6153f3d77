"""Which responses the proxy compresses."""

from __future__ import annotations

import gzip
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "ag-ui.example"
BODY = b'{"items": [' + b'"the same", ' * 1000 + b'"the end"]}'


class Echo(BaseHTTPRequestHandler):
    """A backend that responds with the content type in the request's Accept header."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", self.headers["Accept"])
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_arguments: object) -> None:
        """Suppress the log."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, int]]:
    folder = tmp_path_factory.mktemp("nginx")
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    https = free_port()
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Echo)) as backend:
        variables = {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": 0,
            "ag_ui_backend_ports": [backend],
        }
        render_site(folder, variables)
        with Nginx(folder) as nginx:
            yield nginx, https


@pytest.mark.parametrize(
    ("path", "media_type", "compressed"),
    [
        ("/openapi.json", "application/json", True),
        ("/api/jobs", "application/json", True),
        ("/admin/users", "application/json", True),
        ("/api/query", "application/problem+json", True),
        ("/console/", "text/html; charset=utf-8", True),
        ("/console/assets/app.js", "text/javascript; charset=utf-8", True),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8", True),
        # Compression would buffer frames until a block is full.
        ("/events", "text/event-stream; charset=utf-8", False),
        ("/agent", "text/event-stream; charset=utf-8", False),
        # Responses with tokens: their compressed length would leak other content (BREACH).
        ("/auth/login", "application/json", False),
        ("/auth/ticket", "application/json", False),
        ("/auth/mfa/setup", "application/json", False),
        ("/admin/users/invite", "application/json", False),
        ("/admin/users/1b4e28ba-2fa1-41d2-883f-0016d3cca427/reset-link", "application/json", False),
    ],
)
def test_only_responses_without_secrets_are_compressed(
    site: tuple[Nginx, int], path: str, media_type: str, *, compressed: bool
) -> None:
    nginx, port = site
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {NAME}",
        f"Accept: {media_type}",
        "Accept-Encoding: gzip",
        "Connection: close",
    ]
    answer = nginx.send(port, "\r\n".join([*lines, "", ""]).encode())
    assert answer.status == 200
    assert (answer.headers.get("content-encoding") == "gzip") is compressed
    if compressed:
        assert "Accept-Encoding" in answer.headers["vary"]
        assert gzip.decompress(without_chunks(answer.body)) == BODY
    else:
        assert answer.body == BODY


def without_chunks(body: bytes) -> bytes:
    """Decode a chunked body."""
    whole = b""
    while body:
        length, _, rest = body.partition(b"\r\n")
        size = int(length, 16)
        whole, body = whole + rest[:size], rest[size + 2 :] if size else b""
    return whole
