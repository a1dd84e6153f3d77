"""The proxy retries at another instance only if that may help."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "ag-ui.example"
FULL, OVERLOADED = 502, 503


class Instance:
    """A server that answers every request with the same status, and counts requests."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0

    @contextmanager
    def running(self) -> Iterator[int]:
        instance = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                instance.asked += 1
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                body = json.dumps({"status": instance.status, "type": "own"}).encode()
                self.send_response(instance.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        with serving(ThreadingHTTPServer(("127.0.0.1", 0), Answering)) as port:
            yield port


class Site:
    def __init__(self, nginx: Nginx, port: int, instances: list[Instance]) -> None:
        self.nginx, self.port, self.instances = nginx, port, instances

    def answer(self, method: str, path: str, *statuses: int) -> tuple[int, str, int]:
        """Return the client's status and problem type, and how many requests instances received."""
        for instance, status in zip(self.instances, statuses, strict=True):
            instance.status, instance.asked = status, 0
        head = f"{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n"
        answer = self.nginx.send(self.port, f"{head}Content-Length: 0\r\n\r\n".encode())
        return answer.status, answer.json()["type"], sum(it.asked for it in self.instances)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    instances, https = [Instance(), Instance()], free_port()
    with ExitStack() as stack:
        ports = [stack.enter_context(instance.running()) for instance in instances]
        render_site(
            folder,
            {
                "ag_ui_server_name": NAME,
                "ag_ui_https_port": https,
                "ag_ui_http_port": 0,
                "ag_ui_backend_ports": ports,
                # An instance that has moved away.
                "__ag_ui_leaving_endpoints": [f"127.0.0.1:{free_port()}"],
            },
        )
        yield Site(stack.enter_context(Nginx(folder)), https, instances)


@pytest.mark.parametrize("path", ["/events", "/api/jobs", "/auth/me"])
@pytest.mark.parametrize("full", [(FULL, 200), (200, FULL)])
def test_request_refused_by_a_full_instance_goes_to_the_next(
    site: Site, path: str, full: tuple[int, int]
) -> None:
    for _ in range(3):
        status, _, asked = site.answer("GET", path, *full)
        assert status == 200
        assert asked <= 2


def test_request_refused_by_all_gets_the_last_response(site: Site) -> None:
    assert site.answer("GET", "/events", FULL, FULL) == (FULL, "own", 2)


@pytest.mark.parametrize("path", ["/events", "/api/jobs", "/api/tools", "/auth/me"])
def test_shared_limit_is_not_retried_at_another_instance(site: Site, path: str) -> None:
    assert site.answer("GET", path, OVERLOADED, OVERLOADED) == (OVERLOADED, "own", 1)


@pytest.mark.parametrize("path", ["/api/crawl", "/agent", "/auth/login", "/auth/logout"])
def test_request_with_a_possible_effect_is_sent_once(site: Site, path: str) -> None:
    assert site.answer("POST", path, FULL, FULL) == (FULL, "own", 1)


def test_gateway_error_is_not_retried_at_another_instance(site: Site) -> None:
    assert site.answer("GET", "/api/tools", 502, 502) == (502, "own", 1)


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_health_comes_from_a_working_instance(site: Site, path: str) -> None:
    for _ in range(3):
        assert site.answer("GET", path, OVERLOADED, 200)[0] == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_stopped_instance_fails_no_request(site: Site, method: str) -> None:
    """While instances move to other ports, the proxy knows both addresses."""
    for _ in range(6):
        assert site.answer(method, "/auth/me", 200, 200) == (200, "own", 1)
