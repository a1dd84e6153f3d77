"""Internal hosts are refused in any notation and behind any name."""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.services.tools import ssrf_guard
from src.services.tools.ssrf_guard import SsrfGuard
from src.utils.hosts import TargetRefusedError, parse_url

PRIVATE = st.one_of(
    *(
        st.ip_addresses(v=4, network=network)
        for network in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12")
    ),
    st.ip_addresses(v=4, network="192.168.0.0/16"),
    st.ip_addresses(v=4, network="100.64.0.0/10"),
)


def notations(address: ipaddress.IPv4Address) -> Iterator[str]:
    number, (a, b, c, d) = int(address), address.packed
    yield str(address)
    yield str(number)
    yield hex(number)
    yield f"0{number:o}"
    yield f"0{a:o}.{b}.{hex(c)}.{d}"
    yield f"{a}.{number & 0xFFFFFF}"
    yield str(address) + "."
    yield "".join(chr(ord(one) + 0xFEE0) if one.isdigit() else one for one in str(address))
    yield f"[::ffff:{address}]"
    yield f"[64:ff9b::{address}]"
    yield f"[::{address}]"
    yield f"[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]"


@pytest.fixture(scope="module")
def targets() -> Iterator[SsrfGuard]:
    one = SsrfGuard(allow_private=False)
    yield one
    one.close()


def check(targets: SsrfGuard, host: str) -> None:
    targets.check_host(parse_url(f"http://{host}:8080/path").hostname or "")


@given(PRIVATE)
def test_private_addresses_are_refused_in_every_notation(
    targets: SsrfGuard, address: ipaddress.IPv4Address
) -> None:
    for host in notations(address):
        with pytest.raises(TargetRefusedError):
            check(targets, host)


@pytest.mark.parametrize(
    "host",
    ["0", "0x0", "08.8.8.8", "8.8.010.8", "168.63.129.16", "[::ffff:168.63.129.16]", "[fec0::1]", "224.0.0.1", "255.255.255.255", "[::]", "[::1]", "[fe80::1]", "[fe80::1%25a]",
     "[fd00::1]", "[ff02::1]", "localhost", "LOCALHOST.", "a.localhost", "hx-sqldb-server",
     "metadata.google.internal", "printer.local", "router.lan", "256.1.1.1", "1.2.3.4.5", "a..b",
     "-a.org", "a b.org", ""],
)  # fmt: skip
def test_internal_and_invalid_hosts_are_refused(targets: SsrfGuard, host: str) -> None:
    with pytest.raises(TargetRefusedError):
        check(targets, host)


@pytest.mark.parametrize("host", ["example.org", "EXAMPLE.org.", "bücher.example", "8.8.8.8",
                                  "[2606:4700:4700::1111]", "a-b.c_d.org"])  # fmt: skip
def test_public_hosts_are_accepted(targets: SsrfGuard, host: str) -> None:
    check(targets, host)


@given(st.text(max_size=80))
def test_any_text_is_a_url_or_refused(targets: SsrfGuard, text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}.org/"):
        with suppress(TargetRefusedError):
            targets.check_host(parse_url(url).hostname or "")


async def test_name_is_resolved_once(targets: SsrfGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers: dict[str, list[str]] = {
        "public.example": ["93.184.215.14", "2606:4700:4700::1111"],
        "mixed.example": ["93.184.215.14", "10.0.0.1"],
        "inside.example": ["::1"],
    }

    def look_up(name: str, *_more: Any) -> list[Any]:
        asked.append(name)
        if name not in answers:
            raise socket.gaierror
        return [(0, 0, 0, "", (address, 0)) for address in answers[name]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    await targets.check_url("https://public.example/")
    await targets.check_url("https://unknown.example/")
    for name in ("mixed.example", "inside.example"):
        with pytest.raises(TargetRefusedError, match="leads to"):
            await targets.check_url(f"https://{name}/")
    assert asked == ["public.example", "unknown.example", "mixed.example", "inside.example"]


async def test_slow_dns_is_refused(targets: SsrfGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its DNS servers could answer the tool at once, with an internal address."""
    released = threading.Event()

    def look_up(*_asked: Any) -> list[Any]:
        released.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(ssrf_guard, "_RESOLVE_SECONDS", 0.01)
    try:
        with pytest.raises(TargetRefusedError, match="cannot be looked up in time; try again"):
            await targets.check_url("https://slow.example/")
    finally:
        released.set()


async def test_private_hosts_are_accepted_if_allowed() -> None:
    targets = SsrfGuard(allow_private=True)
    for host in ("127.0.0.1", "hx-web-server", "[::1]"):
        await targets.check_url(f"http://{host}:8080/")
    with pytest.raises(TargetRefusedError):
        await targets.check_url("file:///etc/passwd")
    targets.close()
