"""Limits per client address that nginx applies itself."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "ag-ui.example"
LIMIT = 3


class Site:
    def __init__(self, nginx: Nginx, port: int) -> None:
        self.nginx, self.port = nginx, port


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    port = free_port()
    render_site(
        folder,
        {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": port,
            "ag_ui_http_port": 0,
            "ag_ui_backend_ports": [free_port()],
            "ag_ui_streams_per_address": LIMIT,
            "ag_ui_request_rate": 10_000,
            "ag_ui_login_rate": 10_000,
        },
    )
    with Nginx(folder) as nginx:
        yield Site(nginx, port)


@pytest.mark.parametrize("path", ["/auth/login", "/api/query", "/agent"])
def test_number_of_unfinished_bodies_is_limited(site: Site, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Length: 9\r\n"
    request = f"{head}\r\n".encode() + b"x" * 9
    context = ssl.create_default_context(cafile=str(site.nginx.folder / "tls/server.crt"))
    with ExitStack() as stack:
        for _ in range(LIMIT):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), 10))
            encrypted = stack.enter_context(context.wrap_socket(connection, server_hostname=NAME))
            encrypted.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            # nginx has counted the request when it asks for the body.
            assert b" 100 Continue" in encrypted.recv(1000)
        assert site.nginx.send(site.port, request).status == 429
    # nginx notices the closed connections, admits the request, and has no instance for it.
    assert 502 in (site.nginx.send(site.port, request).status for _ in range(1000))
