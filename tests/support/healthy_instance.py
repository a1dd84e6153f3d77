"""A server in place of a healthy instance of the backend."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import ClassVar


class Healthy(BaseHTTPRequestHandler):
    """An instance that records the proxy keys it receives."""

    keys: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.keys.append(self.headers["X-AG-UI-Proxy-Key"])
        body = b'{"status": "healthy"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
