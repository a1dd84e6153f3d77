"""Challenges of the ACME server: from the files of certbot, on this host or on another one of the group."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import (
    Nginx,
    allow_reading,
    free_port,
    make_certificate,
    make_folders,
    render_site,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "ag-ui.example"
CHALLENGES = "/.well-known/acme-challenge"


def start(folder: Path, http: int, peers: list[int]) -> Nginx:
    """Prepare the proxy of a host with other hosts on these ports."""
    make_folders(folder)
    make_certificate(folder / "tls", NAME)
    allow_reading(folder)
    variables = {
        "ag_ui_server_name": NAME,
        "ag_ui_tls_mode": "acme",
        "ag_ui_https_port": free_port(),
        "ag_ui_http_port": http,
        "ag_ui_backend_ports": [free_port()],
        "__ag_ui_acme_webroot": str(folder / "acme"),
        "__ag_ui_acme_peers": [f"127.0.0.1:{peer}" for peer in peers],
    }
    render_site(folder, variables)
    file = folder / f"acme/{CHALLENGES}/of-{folder.name}"
    file.parent.mkdir(parents=True)
    file.write_text(f"the key of {folder.name}")
    return Nginx(folder)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Nginx, int]]]:
    """Two hosts of a group in which a third one is down."""
    folder = tmp_path_factory.mktemp("hosts")
    ports = {"one": free_port(), "two": free_port()}
    down = free_port()
    with ExitStack() as stack:
        yield {
            name: (
                stack.enter_context(
                    start(folder / name, port, [down, *(p for p in ports.values() if p != port)])
                ),
                port,
            )
            for name, port in ports.items()
        }


def get(host: tuple[Nginx, int], path: str) -> tuple[int, bytes]:
    nginx, port = host
    raw = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
    answer = nginx.send(port, raw.encode(), tls=False)
    return answer.status, answer.body


@pytest.mark.parametrize("name", ["one", "two"])
def test_any_host_answers_the_challenge_of_another(
    hosts: dict[str, tuple[Nginx, int]], name: str
) -> None:
    for owner in hosts:
        expected = (200, f"the key of {owner}".encode())
        assert get(hosts[name], f"{CHALLENGES}/of-{owner}") == expected


def test_unknown_challenge_is_not_found(hosts: dict[str, tuple[Nginx, int]]) -> None:
    status, _ = get(hosts["one"], f"{CHALLENGES}/none")
    # 502 if the host that is down was asked last.
    assert status in {404, 502}


def test_other_paths_are_redirected(hosts: dict[str, tuple[Nginx, int]]) -> None:
    for path in ("/", "/.well-known/other", f"{CHALLENGES}/../../x"):
        status, _ = get(hosts["one"], path)
        assert status == 308
