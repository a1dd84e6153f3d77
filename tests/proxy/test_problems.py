"""Responses of the proxy itself, to requests that never reach the backend."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_certificate, make_folders, render_site

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "ag-ui.example"
PAGE, LONG_PAGE = "https://page.example:8443", f"https://{'long.' * 40}example"
HOST = f"Host: {NAME}\r\nConnection: close\r\n".encode()
# Name: the bytes of a request that nginx refuses, and the status.
REFUSED = {
    "above the root": (b"GET /../x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "long": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "control characters": (b"GET /a\x01b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a byte above ASCII": (b"GET /a\xffb HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a letter in UTF-8": (b"GET /x?name=\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a zero": (b"GET /%00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no request": (b"\x16\x03\x01\r\n\r\n", 400),
    "connect": (b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "trace": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "an unknown method": (b"PURGE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "no host": (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "a large header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 33000 + b"\r\n\r\n", 431),
    "another encoding": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
        501,
    ),
    "version": (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    "a large body": (b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999\r\n\r\n", 413),
    "metrics": (b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "its own page": (b"GET /.problem/400 HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "no instance": (b"POST /auth/login?key=hidden HTTP/1.1\r\n" + HOST + b"\r\n", 502),
}
# The problem types of the backend, where it has one for the same status.
TYPES = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    414: "uri-too-long",
    502: "bad-gateway",
}
REJECTED_BEFORE_THE_REDIRECT = (
    *("above the root", "long", "control characters", "no request", "no host"),
    *("a byte above ASCII", "a letter in UTF-8", "an unknown method"),
)


class Site:
    def __init__(self, nginx: Nginx, https: int, http: int) -> None:
        self.nginx, self.https, self.http = nginx, https, http


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    https, http = free_port(), free_port()
    render_site(
        folder,
        {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": http,
            "ag_ui_backend_ports": [free_port()],
            "ag_ui_cors_origins": [PAGE, LONG_PAGE],
        },
    )
    with Nginx(folder) as nginx:
        yield Site(nginx, https, http)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_request_gets_a_problem_document(site: Site, name: str) -> None:
    request, status = REFUSED[name]
    answer = site.nginx.send(site.https, request)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert ("retry-after" in answer.headers) is (status == 502)


@pytest.mark.parametrize(
    ("arguments", "path", "status"),
    [
        (["--path-as-is"], "/../x", 400),
        ([], "/%00", 400),
        (["--request", "PURGE"], "/", 405),
        (["--request", "TRACE"], "/", 405),
        (["--header", "Content-Length: 99999999", "--data", "x"], "/x", 413),
        (["--header", "Content-Length: 99999999", "--data", "x"], "/auth/login", 413),
        ([], "/metrics", 404),
        (["--request", "POST"], "/auth/login", 502),
    ],
)
def test_refused_request_of_a_browser_gets_a_problem_document(
    site: Site, arguments: list[str], path: str, status: int
) -> None:
    """Browsers use HTTP/2, where nginx handles some refusals differently."""
    done = subprocess.run(
        [
            *("curl", "--silent", "--http2", "--max-time", "20"),
            *("--cacert", site.nginx.folder / "tls/server.crt"),
            *("--resolve", f"{NAME}:{site.https}:127.0.0.1"),
            *("--write-out", "\n%{http_version} %{http_code} %{content_type}"),
            *(*arguments, f"https://{NAME}:{site.https}{path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    body, _, answer = done.stdout.rpartition("\n")
    assert answer == f"2 {status} application/problem+json"
    assert json.loads(body)["status"] == status


@pytest.mark.parametrize("name", REJECTED_BEFORE_THE_REDIRECT)
def test_redirecting_port_sends_the_same_problem_documents(site: Site, name: str) -> None:
    request, status = REFUSED[name]
    answer = site.nginx.send(site.http, request, tls=False)
    assert (answer.status, answer.json()["status"]) == (status, status)


def test_redirecting_port_redirects_valid_requests(site: Site) -> None:
    answer = site.nginx.send(site.http, b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"\r\n", tls=False)
    assert answer.status == 308
    assert answer.headers["location"] == f"https://{NAME}:{site.https}/a?b=c"


def test_plain_http_on_the_https_port_gets_a_problem_document(site: Site) -> None:
    answer = site.nginx.send(site.https, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", tls=False)
    assert (answer.status, answer.json()["status"]) == (400, 400)


@pytest.mark.parametrize("name", REFUSED)
def test_each_status_has_its_own_problem_type(site: Site, name: str) -> None:
    problem = site.nginx.send(site.https, REFUSED[name][0]).json()
    prefix, _, slug = problem["type"].rpartition(":")
    assert prefix == "urn:shield-ag-ui:problem"
    assert slug == TYPES.get(problem["status"], slug) != "blank"


@pytest.mark.parametrize("origin", [PAGE, LONG_PAGE])
@pytest.mark.parametrize("name", ["a large body", "no instance", "metrics"])
def test_allowed_origin_can_read_the_problem_document(site: Site, name: str, origin: str) -> None:
    headers = site.nginx.send(site.https, from_page(name, origin)).headers
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-credentials"] == "true"
    exposed = headers["access-control-expose-headers"].split(", ")
    own = {"X-Request-ID", "Location", "Retry-After", "RateLimit", "RateLimit-Policy"}
    of_uploads = {
        f"Tus-{name}"
        for name in ("Resumable", "Version", "Extension", "Max-Size", "Checksum-Algorithm")
    }
    of_uploads |= {f"Upload-{name}" for name in ("Offset", "Length", "Metadata", "Expires")}
    assert own | of_uploads == {*exposed}
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["https://other.example", f"{PAGE}.other.example", "https://pageXexample:8443", "null"],
)
def test_other_origin_cannot_read_the_problem_document(site: Site, origin: str) -> None:
    headers = site.nginx.send(site.https, from_page("no instance", origin)).headers
    assert not [one for one in headers if one.startswith("access-control")]
    assert headers["vary"] == "Origin"


def from_page(name: str, origin: str) -> bytes:
    """Return the refused request with an Origin header, as a page would send it."""
    return REFUSED[name][0].replace(HOST, HOST + f"Origin: {origin}\r\n".encode())


def test_http_2_gets_the_same_problem_document(site: Site) -> None:
    command = ["curl", "--silent", "--insecure", "--http2", "--path-as-is", "--max-time", "10"]
    command += ["--write-out", "\n%{http_version} %{http_code} %{content_type}"]
    done = subprocess.run(
        [*command, f"https://127.0.0.1:{site.https}/../x"],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, last = done.stdout.rpartition("\n")
    assert last == "2 400 application/problem+json"
    assert json.loads(body)["status"] == 400


def test_problem_is_logged_with_its_path(site: Site) -> None:
    request, _ = REFUSED["no instance"]
    id_ = site.nginx.send(site.https, request).headers["x-request-id"]
    lines = [json.loads(line) for line in site.nginx.log("ag-ui.access.log").splitlines()]
    [line] = [line for line in lines if line["request_id"] == id_]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/auth/login", 502)
    assert not re.search("hidden", site.nginx.log("ag-ui.access.log"))
