"""Parsing and normalisation of URLs and hosts."""

import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.utils.hosts import (
    TargetRefusedError,
    canonical_host,
    canonical_url,
    is_public,
    parse_url,
)


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
