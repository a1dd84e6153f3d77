"""Detection of internal hosts in any notation."""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from src.models.tools import CrawlWeb, IngestDoc
from src.services.tools import ssrf_guard
from src.services.tools.ssrf_guard import SsrfGuard
from src.utils.hosts import (
    TargetRefusedError,
    canonical_host,
    canonical_url,
    is_public,
    parse_url,
)

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


@pytest.mark.parametrize(
    "url",
    ["example.org", "//example.org", "ftp://example.org", "javascript:alert(1)", "http:///x",
     "http://u@example.org", "http://u:p@example.org", "http://example.org:99999", "http://[::1",
     "http://example.org\\@127.0.0.1", "http://example.org\r\nHost: x", "http://exa mple.org",
     " http://example.org", "http://example.org\u200b", "http://ex\u00adample.org",
     "http://ex\u034fample.org/", "http://example.org/\u3164", "http://example.org/\ufe0f",
     "http://example.org/" + "x" * 2048],
)  # fmt: skip
def test_invalid_urls_are_refused(url: str) -> None:
    with pytest.raises(TargetRefusedError):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "sent"),
    [("HTTP://EXAMPLE.org", "http://example.org"),
     ("https://Bücher.example./a?b=%C3%BC#c", "https://xn--bcher-kva.example/a?b=%C3%BC#c"),
     ("http://0x8080808/", "http://8.8.8.8/"), ("http://\uff18.8.8.8:080/", "http://8.8.8.8:80/"),
     ("http://[2606:4700:4700:0::1111]:8080/", "http://[2606:4700:4700::1111]:8080/"),
     ("http://a.example。org", "http://a.example.org")],
)  # fmt: skip
def test_host_is_sent_in_canonical_form(url: str, sent: str) -> None:
    assert canonical_url(url) == sent
    crawl = CrawlWeb(url=url, allowed_domains=["Bücher.Example."])
    assert (crawl.url, crawl.allowed_domains) == (sent, ["xn--bcher-kva.example"])


@pytest.mark.parametrize("domain", [" example.org", "example.org ", "ex\u00adample.org",
                                    "ex\u034fample.org", "example.org\u200b"])  # fmt: skip
def test_invisible_characters_in_a_domain_are_refused(domain: str) -> None:
    with pytest.raises(ValidationError, match="invisible"):
        CrawlWeb(url="http://example.org", allowed_domains=[domain])


@pytest.mark.parametrize(
    "path",
    [" file:///etc/passwd", "\u2060http://10.0.0.1/", "a.pdf ", "\u00a0a.pdf", "a\u3164.pdf"],
)
def test_invisible_characters_in_a_path_are_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="invisible"):
        IngestDoc(file_path=path)
    assert IngestDoc(file_path="my report.pdf").file_path == "my report.pdf"


# Python versions classify each of these addresses differently.
@pytest.mark.parametrize(
    ("address", "public"),
    [("192.0.0.9", False), ("192.0.0.200", False), ("192.88.99.1", False), ("3fff::1", False),
     ("2001:1::1", False), ("2001:20::1", False), ("64:ff9b:1::1", False), ("5f00::1", False),
     ("2002:808:808::1", True), ("2620:4f:8000::1", True), ("192.31.196.1", True)],
)  # fmt: skip
def test_special_addresses_do_not_depend_on_the_python_version(address: str, public: bool) -> None:  # noqa: FBT001 - a case
    assert is_public(ipaddress.ip_address(address)) is public


@given(st.text(max_size=80))
def test_canonical_url_is_idempotent(text: str) -> None:
    with suppress(TargetRefusedError):
        sent = canonical_url(f"http://{text}")
        assert canonical_url(sent) == sent
        assert canonical_host(parse_url(sent).hostname or "") == canonical_host(
            parse_url(f"http://{text}").hostname or ""
        )


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
