"""A frontend of the site is served at `/`, beside the paths of the backend."""

from __future__ import annotations

import gzip
import json
import re
import ssl
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.ansible_module import run_module
from tests.support.nginx import (
    Nginx,
    allow_reading,
    free_port,
    make_certificate,
    make_folders,
    render_site,
)
from tests.support.playbook import TOP
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.nginx import Answer

NAME = "ag-ui.example"
POLICY = "default-src 'self'; connect-src 'self' wss://a.example; frame-ancestors 'none'"
OWN_POLICY = "default-src 'self'; script-src 'nonce-abc'"
KEY = "the key of the proxy for the backend"
VARIABLES = yaml.safe_load(
    (TOP / "roles/ag_ui_deployment/vars/main/frontend.yml").read_text(encoding="utf-8")
)
SCRIPT = b"export const text = 'the same'; " * 200
FORMER = {"index.html": b"the former page", "assets/index-Former01.js": b"former"}
FILES = {
    "index.html": b"<!doctype html><p>the page</p>",
    "about.html": b"about",
    "manual/index.html": b"manual",
    "favicon.ico": b"icon",
    "config.json": b"{}",
    "app.webmanifest": b"{}",
    "assets/index-DiwrgTda.js": SCRIPT,
    "assets/index-n_ryQ3BS.css": b"p {}",
    "assets/logo.svg": b"<svg/>",
    "assets/module-Ab12Cd34.wasm": b"\0asm",
    ".well-known/security.txt": b"Contact: mailto:a@example.org",
}
IMMUTABLE = "public, max-age=31536000, immutable"
ONCE = (
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "content-security-policy",
    "cross-origin-opener-policy",
    "permissions-policy",
    "x-request-id",
)


class Echo(BaseHTTPRequestHandler):
    """A server that answers with its name, and the path and the headers of the request."""

    name: ClassVar[str]
    headers_sent: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        said = {"server": self.name, "path": self.path, "headers": dict(self.headers)}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Backend(Echo):
    name = "backend"


class Frontend(Echo):
    name = "frontend"


class FrontendWithPolicy(Echo):
    name = "frontend"
    headers_sent: ClassVar = {
        "Content-Security-Policy": OWN_POLICY,
        "X-Frame-Options": "SAMEORIGIN",
    }


class Site:
    def __init__(self, nginx: Nginx, port: int) -> None:
        self.nginx, self.port = nginx, port

    def ask(self, path: str, *headers: str, method: str = "GET") -> Answer:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {NAME}", "Connection: close", *headers]
        return self.nginx.send(self.port, "\r\n".join([*lines, "", ""]).encode())

    def server(self, path: str, method: str = "GET") -> str:
        """Return who answers."""
        body = self.ask(path, "Content-Length: 0", method=method).body
        return str(json.loads(body)["server"]) if body.startswith(b'{"server"') else "files"


def install(folder: Path, files: dict[str, bytes]) -> str:
    """Install a version as the role does; return it."""
    source = folder / f"dist-{len(list(folder.iterdir()))}"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    packed = str(folder / "frontend.tar.gz")
    version: str = run_module(
        "ag_ui_frontend_source", {"path": str(source), "dest": packed}, folder, {}
    )["version"]
    options = {"directory": str(folder / "frontend"), "version": version, "src": packed}
    options["hashed"] = VARIABLES["__ag_ui_frontend_hashed"]
    run_module("ag_ui_frontend", options, folder, {})
    return version


def started(folder: Path, stack: ExitStack, source: str, version: str = "", **changes: str) -> Site:
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    allow_reading(folder)
    https = free_port()
    backend = stack.enter_context(serving(ThreadingHTTPServer(("127.0.0.1", 0), Backend)))
    render_site(
        folder,
        {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": 0,
            "ag_ui_backend_ports": [backend],
            "ag_ui_request_rate": 1000,
            "ag_ui_frontend_source": source,
            "ag_ui_frontend_content_security_policy": POLICY,
            "__ag_ui_frontend_dir": str(folder / "frontend"),
            "__ag_ui_frontend_version": version,
            **changes,
        },
    )
    (folder / "proxy-key.conf").write_text(f'proxy_set_header X-AG-UI-Proxy-Key "{KEY}";')
    return Site(stack.enter_context(Nginx(folder)), https)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose frontend are files, of which there was a former version."""
    folder = tmp_path_factory.mktemp("files")
    install(folder, FORMER)
    version = install(folder, FILES)
    with ExitStack() as stack:
        yield started(folder, stack, str(folder), version)


def upstream(
    tmp: pytest.TempPathFactory, stack: ExitStack, handler: type[BaseHTTPRequestHandler]
) -> Site:
    port = stack.enter_context(serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)))
    return started(tmp.mktemp("upstream"), stack, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose frontend is another server."""
    with ExitStack() as stack:
        yield upstream(tmp_path_factory, stack, Frontend)


# --- which paths belong to whom -----------------------------------------------------------

OF_BACKEND = [
    *(f"/{name}" for name in VARIABLES["__ag_ui_backend_paths"] if name not in {"auth", "metrics"}),
    "/api/jobs?limit=1",
    "/api/jobs/x/events",
    "/api/uploads/x",
    "/auth/me",
    "/auth/mfa/setup",
    "/admin/users/x/reset-link",
    "/agent/runs/x/events",
    "/console/",
    "/console/assets/index.js",
    "/docs/swagger-ui.css",
    "/health/ready",
    # Names that begin with a dot are of neither.
    "/.env",
    "/assets/.git/config",
    "/.well-known/.git/config",
]
OF_FRONTEND = [
    "/",
    "/jobs/1",
    "/apis",
    "/events-overview",
    "/healthcare",
    "/metrics-overview",
    "/registered",
    "/de/api/",
    "/openapi.json5",
    "/.well-known/security.txt",
]


@pytest.mark.parametrize("path", OF_BACKEND)
def test_paths_of_the_backend_keep_working(site: Site, proxied: Site, path: str) -> None:
    assert [site.server(path), proxied.server(path)] == ["backend"] * 2
    assert proxied.server(path, "POST") == "backend"


@pytest.mark.parametrize("path", OF_FRONTEND)
def test_other_paths_are_those_of_the_frontend(site: Site, proxied: Site, path: str) -> None:
    assert [site.server(path), proxied.server(path)] == ["files", "frontend"]
    assert site.ask(path).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/metrics/8002", "/metrics;x", "/metrics%2F"])
def test_metrics_stay_hidden(site: Site, proxied: Site, path: str) -> None:
    assert [site.ask(path).status, proxied.ask(path).status] == [404, 404]


def test_without_a_frontend_the_backend_answers_everything(tmp_path: Path) -> None:
    with ExitStack() as stack:
        site = started(tmp_path, stack, "")
        assert {site.server(path) for path in OF_BACKEND + OF_FRONTEND} == {"backend"}
        assert "ag_ui_frontend" not in (tmp_path / "conf.d/ag-ui.conf").read_text()


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/", "index.html"),
        ("/index.html", "index.html"),
        ("/jobs/1?tab=events", "index.html"),
        ("/users/john.doe", "index.html"),
        ("/assets", "index.html"),
        ("/assets/", "index.html"),
        ("/manual", "manual/index.html"),
        ("/manual/", "manual/index.html"),
        ("/about", "about.html"),
        ("/config.json", "config.json"),
        ("/assets/index-DiwrgTda.js", "assets/index-DiwrgTda.js"),
        ("/.well-known/security.txt", ".well-known/security.txt"),
    ],
)
def test_files_are_served_and_routes_get_the_page(site: Site, path: str, file: str) -> None:
    answer = site.ask(path)
    assert (answer.status, answer.body) == (200, FILES[file])
    assert site.ask(path, method="HEAD").headers["content-type"] == answer.headers["content-type"]


@pytest.mark.parametrize(
    "path", ["/assets/index-Missing1.js", "/assets/x.css", "/robots.txt", "/x.PNG"]
)
def test_missing_files_are_not_found(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "cache-control" not in answer.headers


def test_page_of_a_former_version_finds_its_files(site: Site) -> None:
    answer = site.ask("/assets/index-Former01.js")
    assert (answer.status, answer.body) == (200, b"former")
    assert answer.headers["cache-control"] == IMMUTABLE


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/assets/index-DiwrgTda.js", "text/javascript; charset=utf-8"),
        ("/assets/index-n_ryQ3BS.css", "text/css; charset=utf-8"),
        ("/assets/logo.svg", "image/svg+xml"),
        ("/assets/module-Ab12Cd34.wasm", "application/wasm"),
        ("/config.json", "application/json"),
        ("/app.webmanifest", "application/manifest+json"),
        ("/favicon.ico", "image/x-icon"),
        ("/.well-known/security.txt", "text/plain; charset=utf-8"),
    ],
)
def test_files_have_their_type(site: Site, path: str, media_type: str) -> None:
    assert site.ask(path).headers["content-type"] == media_type


@pytest.mark.parametrize(
    ("path", "cached"),
    [
        ("/", "no-cache"),
        ("/index.html", "no-cache"),
        ("/jobs/1", "no-cache"),
        ("/about", "no-cache"),
        ("/favicon.ico", "no-cache"),
        ("/config.json", "no-cache"),
        ("/assets/logo.svg", "no-cache"),
        ("/assets/index-DiwrgTda.js", IMMUTABLE),
        ("/assets/index-n_ryQ3BS.css", IMMUTABLE),
    ],
)
def test_only_names_with_a_digest_are_cached_for_ever(site: Site, path: str, cached: str) -> None:
    answer = site.ask(path)
    assert answer.headers["cache-control"] == cached
    assert "last-modified" not in answer.headers
    unchanged = site.ask(path, f"If-None-Match: {answer.headers['etag']}")
    assert (unchanged.status, unchanged.headers["cache-control"]) == (304, cached)
    assert site.ask(path, 'If-None-Match: "other"').status == 200


def test_files_are_compressed(site: Site) -> None:
    answer = site.ask("/assets/index-DiwrgTda.js", "Accept-Encoding: gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in answer.headers["vary"]
    body = answer.body
    if answer.headers.get("transfer-encoding") == "chunked":
        body = b"".join(re.findall(rb"[0-9a-f]+\r\n(.+)\r\n0\r\n", body, re.DOTALL))
    assert gzip.decompress(body) == SCRIPT


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_files_cannot_be_written(site: Site, method: str) -> None:
    for path in ("/", "/index.html", "/assets/index-DiwrgTda.js"):
        assert site.ask(path, "Content-Length: 0", method=method).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/../proxy-key.conf",
        "/%2e%2e/proxy-key.conf",
        "/assets/..%2f..%2f..%2fproxy-key.conf",
        "/..%5cproxy-key.conf",
        "/%00",
    ],
)
def test_nothing_outside_of_the_frontend_is_served(site: Site, path: str) -> None:
    assert not site.ask(path).body.startswith(b"proxy_set_header")


# --- headers ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/jobs/1", "/assets/index-DiwrgTda.js", "/favicon.ico"])
def test_files_have_the_headers_and_the_policy_of_the_frontend(site: Site, path: str) -> None:
    headers = site.ask(path).headers
    assert [name for name in ONCE if name not in headers] == []
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"


def test_policy_of_the_backend_stays(site: Site, proxied: Site) -> None:
    for one in (site, proxied):
        assert "default-src 'none'" in one.ask("/api/jobs").headers["content-security-policy"]
        assert "default-src 'none'" in one.ask("/metrics").headers["content-security-policy"]


def test_upstream_gets_the_request_without_the_key_of_the_proxy(proxied: Site) -> None:
    said = proxied.ask("/a%20b?c=d", "X-AG-UI-Proxy-Key: forged", "Cookie: a=b").json()
    assert said["path"] == "/a%20b?c=d"
    headers = {name.lower(): value for name, value in said["headers"].items()}
    assert headers["host"] == NAME
    assert headers["x-forwarded-proto"] == "https"
    assert headers["cookie"] == "a=b"
    assert KEY not in headers.values()
    of_backend = proxied.ask("/api/jobs").json()["headers"]
    assert KEY in of_backend.values()


def test_policy_of_an_upstream_takes_precedence(
    proxied: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert proxied.ask("/").headers["content-security-policy"] == POLICY
    with ExitStack() as stack:
        headers = upstream(tmp_path_factory, stack, FrontendWithPolicy).ask("/").headers
    assert headers["content-security-policy"] == OWN_POLICY
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(("name", "status"), [("localhost", 200), ("other.example", 502)])
def test_certificate_of_an_upstream_is_verified(tmp_path: Path, name: str, status: int) -> None:
    make_certificate(tmp_path / "upstream", name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = tmp_path / "upstream/server.crt", tmp_path / "upstream/server.key"
    context.load_cert_chain(*pair)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Frontend)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with ExitStack() as stack:
        port = stack.enter_context(serving(server))
        site = started(
            tmp_path / "nginx",
            stack,
            f"https://localhost:{port}",
            __ag_ui_system_authorities=str(pair[0]),
        )
        assert site.ask("/").status == status


def test_upstream_that_is_down_does_not_affect_the_backend(tmp_path: Path) -> None:
    with ExitStack() as stack:
        site = started(tmp_path, stack, f"http://127.0.0.1:{free_port()}")
        assert site.ask("/").status == 502
        assert site.server("/api/jobs") == "backend"


# --- names with a digest ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "assets/index-DiwrgTda.js",
        "assets/index-n_ryQ3BS.css",
        "assets/index-Ab-d_fG2.css",
        "assets/index-DiwrgTda.js.map",
        "main-5EZ3DHR7.js",
        "static/js/main.8a7b6c5d.chunk.js",
        "static/media/logo.6ce24c58023cc2f8fd88fe9d219db6c6.svg",
        "_next/static/css/0a1b2c3d4e5f6789.css",
        "_app/immutable/chunks/DqZ3x1aB.js",
        "_nuxt/BxYz12ab.js",
        "_astro/index.DqZ3x1aB.css",
    ],
)
def test_names_with_a_digest_are_recognized(name: str) -> None:
    assert re.match(VARIABLES["__ag_ui_frontend_hashed"], name)


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "page-Ab12Cd34.html",
        "favicon.ico",
        "service-worker.js",
        "firebase-messaging-sw.js",
        "js/jquery-3.7.1.min.js",
        "assets/my-component.png",
        "assets/report-Overview.pdf",
        "assets/logo-1920x1080.png",
        "assets/report-20241231.pdf",
        "assets/user-manual-2024.pdf",
        "locales/messages-userData.json",
        "_nuxt/builds/latest.json",
    ],
)
def test_other_names_are_not_taken_for_some_with_a_digest(name: str) -> None:
    assert not re.match(VARIABLES["__ag_ui_frontend_hashed"], name)
