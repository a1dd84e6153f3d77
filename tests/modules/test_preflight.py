"""The preflight checks of the target, without a run of the playbook."""

from __future__ import annotations

import contextlib
import os
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import import_util, run_module
from tests.support.packaged_site import add_packaged_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HTTP = {"variable": "ag_ui_http_port", "port": 80, "process": "nginx"}
HTTPS = {"variable": "ag_ui_https_port", "port": 443, "process": "nginx"}


def problems(folder: Path, **arguments: Any) -> list[str]:
    """Return the problems found, except those of this machine."""
    common = {"account": {"name": "root", "uid": 0}, "certificate": "/nonexistent"}
    path = f"{folder}:{os.environ['PATH']}"
    environment = {"LC_ALL": "C.UTF-8", "PATH": path}
    done = run_module("ag_ui_preflight", common | arguments, folder, environment)
    return [one for one in done.get("problems", []) if "run by systemd" not in one]


def nginx(folder: Path, **files: str) -> dict[str, Any]:
    """Write an nginx with these sites; return the module's arguments for it."""
    sites = folder / "sites"
    sites.mkdir()
    for name, text in files.items():
        (sites / name).write_text(text)
    main = folder / "nginx.conf"
    main.write_text("http {\n    # include nowhere;\n    include sites/*;\n}\n")
    return {
        "main": str(main),
        "files": [str(sites / "ours")],
        "packaged": [str(sites / "default")],
        "names": ["ag-ui.example", "www.ag-ui.example"],
        "default_server": True,
        "ports": [HTTPS, HTTP],
    }


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        ("443 ssl default_server", 443),
        ("*:443 ssl http2 default_server", 443),
        ("[::]:443 default_server ssl", 443),
        ("0.0.0.0:80 default", 80),
    ],
)
def test_other_default_server_is_reported_with_the_remedy(
    tmp_path: Path, listen: str, port: int
) -> None:
    text = f"server {{\n  server_name a;  listen {listen};\n}}\n"
    proxy = nginx(tmp_path, shop=text)
    [found] = problems(tmp_path, proxy=proxy)
    variable = "ag_ui_https_port" if port == 443 else "ag_ui_http_port"
    assert found == (
        f"{variable}: {tmp_path}/sites/shop already has the default server of port {port} of nginx on this host. "
        f"Take default_server out of its listen line, set {variable} to another port, or set ag_ui_default_server "
        f"to false."
    )


@pytest.mark.parametrize(
    "text",
    [
        "server { listen 443 ssl; }",
        "server { listen 8443 ssl default_server; }",
        "server { listen 192.0.2.1:443 ssl default_server; }",
        "server {\n  # listen 443 default_server;\n}",
        "server { listen unix:/run/a.sock default_server; }",
    ],
)
def test_harmless_other_sites_are_not_reported(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, proxy=nginx(tmp_path, shop=text)) == []


EXAMPLE = "server { listen 80 default_server; listen 443 ssl default_server; }"


def test_own_site_and_packaged_default_site_are_not_reported(tmp_path: Path) -> None:
    proxy = nginx(tmp_path, ours=EXAMPLE)
    add_packaged_site(tmp_path / "sites/default", EXAMPLE, programs=tmp_path)
    assert problems(tmp_path, proxy=proxy) == []


def test_default_server_of_others_may_stay_beside_a_site_that_is_none(tmp_path: Path) -> None:
    proxy = nginx(tmp_path, shop=EXAMPLE) | {"default_server": False}
    assert problems(tmp_path, proxy=proxy) == []


def test_site_that_is_no_default_server_takes_the_place_of_none(tmp_path: Path) -> None:
    """Nginx would use the role's site, which it reads first."""
    text = "server { listen 443 ssl; }\nserver { listen 80 default_server; }"
    proxy = nginx(tmp_path, shop=text) | {"default_server": False}
    [found] = problems(tmp_path, proxy=proxy)
    assert "no site of nginx on this host is the default server of port 443" in found
    assert f"Add default_server to the listen line of {tmp_path}/sites/shop" in found


@pytest.mark.parametrize(
    ("text", "port", "name"),
    [
        ("server { listen 443 ssl; server_name WWW.ag-ui.example; }", 443, "www.ag-ui.example"),
        ("server {\n  server_name shop ag-ui.example;\n}", 80, "ag-ui.example"),
        (
            "server { listen 192.0.2.1:443 ssl; location / { return 200; }\nserver_name ag-ui.example; }",
            443,
            "ag-ui.example",
        ),
    ],
    ids=["alias", "default port", "one address"],
)
def test_other_site_with_the_same_name_is_reported(
    tmp_path: Path, text: str, port: int, name: str
) -> None:
    [found] = problems(tmp_path, proxy=nginx(tmp_path, shop=text))
    assert f"{tmp_path}/sites/shop already serves {name} on port {port}" in found
    assert found.startswith("ag_ui_server_name, ag_ui_server_aliases: ")
    assert f"set {'ag_ui_https_port' if port == 443 else 'ag_ui_http_port'} to another" in found


@pytest.mark.parametrize(
    "text",
    [
        "server { listen 8080; server_name ag-ui.example; }",
        "server { listen unix:/run/a.sock; server_name ag-ui.example; }",
        "server { listen 80; server_name other.example; }\nserver { listen 81; server_name ag-ui.example; }",
        "upstream ag-ui.example { server 192.0.2.1:443; }",
    ],
)
def test_name_on_other_ports_is_not_reported(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, proxy=nginx(tmp_path, shop=text)) == []


def test_own_site_may_have_its_own_name(tmp_path: Path) -> None:
    ours = "server { listen 443 ssl; server_name ag-ui.example; }"
    assert problems(tmp_path, proxy=nginx(tmp_path, ours=ours)) == []


def test_directives_of_the_main_context_are_those_of_others(tmp_path: Path) -> None:
    main = tmp_path / "nginx.conf"
    main.write_text(
        "user www-data;\ninclude main/*;\nevents { multi_accept on; }\nhttp { gzip on; }\n"
    )
    (tmp_path / "main").mkdir()
    (tmp_path / "main/90-ours.conf").write_text("worker_shutdown_timeout 60s;")
    (tmp_path / "main/60-other.conf").write_text("# worker_priority 1;\nworker_rlimit_nofile 9;")
    files = import_util("ag_ui_nginx_files")
    found = files.main_directives(main, {tmp_path / "main/90-ours.conf"})
    assert found == {"user", "include", "events", "http", "worker_rlimit_nofile"}


def test_changed_default_site_is_reported(tmp_path: Path) -> None:
    proxy = nginx(tmp_path)
    site = add_packaged_site(tmp_path / "sites/default", EXAMPLE, programs=tmp_path)
    site.write_text(f"# our shop\n{EXAMPLE}")
    found = problems(tmp_path, proxy=proxy)
    assert [one.partition(":")[0] for one in found] == ["ag_ui_https_port", "ag_ui_http_port"]
    assert f"{tmp_path}/sites/default already has the default server of port 443" in found[0]


def test_circular_includes_terminate(tmp_path: Path) -> None:
    text = f"include {tmp_path}/sites/*;\nserver {{ listen 80 default_server; }}"
    assert len(problems(tmp_path, proxy=nginx(tmp_path, shop=text))) == 1


def test_host_without_nginx_has_no_other_site(tmp_path: Path) -> None:
    proxy: dict[str, Any] = {
        "main": f"{tmp_path}/none",
        "files": [],
        "packaged": [],
        "ports": [HTTPS],
    }
    proxy |= {"names": ["ag-ui.example"], "default_server": True}
    assert problems(tmp_path, proxy=proxy) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("name=seccomp,profile=builtin\nname=userns", "maps the users of containers to others"),
        ("name=rootless", "is run by a user who is not root"),
    ],
)
def test_engine_with_user_namespaces_is_reported(tmp_path: Path, options: str, words: str) -> None:
    docker(tmp_path, options)
    [found] = problems(tmp_path)
    assert words in found
    assert "/etc/docker/daemon.json" in found


def test_default_engine_is_accepted(tmp_path: Path) -> None:
    docker(tmp_path, "name=apparmor\nname=seccomp,profile=builtin\nname=cgroupns")
    assert problems(tmp_path) == []


def docker(folder: Path, options: str) -> None:
    """Write a stub of docker that reports these security options."""
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\ntest $1 = info || exit 1\ncat <<EOF\n{options}\nEOF\n")
    path.chmod(0o755)


class Gateway(BaseHTTPRequestHandler):
    """A server at the gateway's address."""

    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            self.drip()
            return
        redirects = self.path.startswith("/moved")
        self.send_response(308 if redirects else 405)
        if redirects:
            self.send_header("Location", f"https://gateway.example{self.path}")
        self.end_headers()

    def drip(self) -> None:
        """Send headers one after the other, each before a client loses patience with the socket."""
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 308 Moved\r\n")
            for number in range(60):
                self.wfile.write(f"X-{number}: 1\r\n".encode())
                time.sleep(0.5)
            self.wfile.write(b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    with serving(HTTPServer(("127.0.0.1", 0), Gateway)) as port:
        yield f"http://127.0.0.1:{port}"


def test_redirecting_gateway_is_reported(tmp_path: Path, gateway: str) -> None:
    [found] = problems(tmp_path, gateway=f"{gateway}/moved/")
    assert (
        f"ag_ui_litellm_url: {gateway}/moved/ redirects (308) to https://gateway.example/moved/"
        in found
    )
    assert "Set the variable to the address that it redirects to" in found


def test_answering_or_unreachable_gateway_is_accepted(tmp_path: Path, gateway: str) -> None:
    assert problems(tmp_path, gateway=gateway) == []
    assert problems(tmp_path, gateway="http://127.0.0.1:1") == []
    assert problems(tmp_path, gateway="http://no-such-name.invalid") == []


def test_slow_gateway_ends_the_check(tmp_path: Path, gateway: str) -> None:
    started = time.monotonic()
    assert problems(tmp_path, gateway=f"{gateway}/slow", timeout=1) == []
    assert time.monotonic() - started < 20
