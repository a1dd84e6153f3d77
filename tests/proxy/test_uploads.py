"""The proxy passes documents on as they arrive, and to one instance only."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "ag-ui.example"
BODY_MAX = 1024
SIZE = 200_000
PATIENCE = 20


class ReceivedBytes:
    """Counts the bytes that all instances have received."""

    def __init__(self) -> None:
        self.size = 0
        self._changed = threading.Condition()

    def add(self, size: int) -> None:
        with self._changed:
            self.size += size
            self._changed.notify_all()

    def wait_for(self, size: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.size >= size, PATIENCE)


class Instance:
    """Receives bodies. With `cuts` it closes the connection after the first bytes."""

    def __init__(self, received: ReceivedBytes) -> None:
        self.received = received
        self.cuts = False
        self.asked = 0

    @contextmanager
    def running(self) -> Iterator[int]:
        instance = self

        class Receiving(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PATCH(self) -> None:
                instance.asked += 1
                left = int(self.headers["Content-Length"])
                while left:
                    chunk = self.rfile.read1(left)
                    instance.received.add(len(chunk))
                    left -= len(chunk)
                    if instance.cuts or not chunk:
                        self.close_connection = True
                        return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with serving(ThreadingHTTPServer(("127.0.0.1", 0), Receiving)) as port:
            yield port


class Site:
    def __init__(self, nginx: Nginx, port: int, instances: list[Instance]) -> None:
        self.nginx, self.port, self.instances = nginx, port, instances
        self.received = instances[0].received

    @contextmanager
    def connection(self, path: str = "/api/uploads/x") -> Iterator[ssl.SSLSocket]:
        """Send the head of a request with SIZE bytes."""
        context = ssl.create_default_context(cafile=str(self.nginx.folder / "tls/server.crt"))
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as connection,
        ):
            head = f"PATCH {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {SIZE}\r\n\r\n"
            connection.sendall(head.encode())
            yield connection


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    make_folders(tmp_path)
    make_certificate(tmp_path / "tls", NAME)
    received, https = ReceivedBytes(), free_port()
    instances = [Instance(received), Instance(received)]
    with ExitStack() as stack:
        ports = [stack.enter_context(instance.running()) for instance in instances]
        variables = {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": 0,
            "ag_ui_backend_ports": ports,
            "ag_ui_body_max_bytes": BODY_MAX,
        }
        render_site(tmp_path, variables)
        yield Site(stack.enter_context(Nginx(tmp_path)), https, instances)


def test_bytes_reach_the_instance_before_the_last_one_is_sent(site: Site) -> None:
    with site.connection() as connection:
        connection.sendall(b"x" * (SIZE // 2))
        site.received.wait_for(SIZE // 2)
        connection.sendall(b"x" * (SIZE // 2))
        assert connection.recv(1000).startswith(b"HTTP/1.1 204")
    assert site.received.size == SIZE


def test_upload_that_an_instance_cuts_is_not_sent_to_another(site: Site) -> None:
    for instance in site.instances:
        instance.cuts = True
    with site.connection() as connection:
        connection.sendall(b"x" * (SIZE // 2))
        assert connection.recv(1000).startswith(b"HTTP/1.1 502")
    assert sum(instance.asked for instance in site.instances) == 1


@pytest.mark.parametrize("path", ["/api/uploads/x", "/api/uploads", "/api//uploads/x"])
def test_documents_may_be_larger_than_other_bodies(site: Site, path: str) -> None:
    with site.connection(path) as connection:
        connection.sendall(b"x" * SIZE)
        assert connection.recv(1000).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(
    "path",
    [
        "/api/uploadsx",
        "/api/upload",
        "/x/api/uploads",
        "/api/crawl",
        "/api/crawl?/api/uploads",
        "/api/uploads/../crawl",
        "/api/uploads/%2e%2e/crawl",
    ],
)
def test_no_other_body_may_be_as_large(site: Site, path: str) -> None:
    with site.connection(path) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
    assert site.received.size == 0
