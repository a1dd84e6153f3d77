"""Normalises URLs and hosts, and tells whether addresses are public."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL_MAX = 2048
# Like in the URL standard, a host whose last label is a number must be an IPv4 address.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*"
)
# A number with leading zeros, which some parsers read as octal and others as decimal.
_AMBIGUOUS = re.compile(r"(?:^|\.)0[0-9]")
# Printable characters without a visible glyph. IDNA removes most of them.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# The IANA special-purpose address registries, since Python's own lists differ by version. The last
# one is the metadata service of Azure, which has a public address.
_SPECIAL_IPV4 = [
    ipaddress.IPv4Network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3", "168.63.129.16/32",
    )
]  # fmt: skip
# The global unicast range of IPv6, and the special-purpose networks in it.
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV6 = [ipaddress.IPv6Network(one) for one in ("2001::/23", "2001:db8::/32", "3fff::/20")]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class TargetRefusedError(ValueError):
    """The address is none that a tool may be sent to; the message says why."""


def parse_url(url: str) -> SplitResult:
    """Split a URL that a tool may fetch.

    Raises:
        TargetRefusedError: It is no valid HTTP URL, or holds credentials.
    """
    if len(url) > _URL_MAX:
        raise TargetRefusedError(f"is longer than {_URL_MAX} characters")
    if " " in url or "\\" in url or not is_visible(url):
        raise TargetRefusedError("has spaces, invisible characters or backslashes; encode them")
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        raise TargetRefusedError("is no address; write https://host/path") from None
    if parts.scheme not in {"http", "https"}:
        raise TargetRefusedError("begins with neither http:// nor https://")
    if "@" in parts.netloc:
        raise TargetRefusedError("holds a user name or password; leave them out")
    canonical_host(parts.hostname or "")
    return parts


def canonical_url(url: str) -> str:
    """Return a URL with its host in canonical form, so that other parsers read the same host.

    Raises:
        TargetRefusedError: It is no valid HTTP URL, or holds credentials.
    """
    parts = parse_url(url)
    host = canonical_host(parts.hostname or "")
    name = f"[{host}]" if isinstance(host, ipaddress.IPv6Address) else str(host)
    port = "" if parts.port is None else f":{parts.port}"
    return parts._replace(netloc=name + port).geturl()


def canonical_host(host: str) -> str | Address:
    """Normalise a host to an address, or to a lower-case ASCII name, as the resolver reads it.

    Raises:
        TargetRefusedError: It is no valid host.
    """
    if not is_visible(host):
        raise TargetRefusedError("has invisible characters; leave them out")
    try:
        text = host.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        text = host.lower()
    if ":" in text:
        try:
            return ipaddress.IPv6Address(text)
        except ValueError:
            raise TargetRefusedError("has no valid IPv6 address as its host") from None
    if _NUMBER.fullmatch(text.rpartition(".")[2]):
        if _AMBIGUOUS.search(text):
            raise TargetRefusedError("has leading zeros in its IPv4 address; leave them out")
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except OSError:
            raise TargetRefusedError("has no valid IPv4 address as its host") from None
    if not _NAME.fullmatch(text):
        raise TargetRefusedError("has no valid host")
    return text


def is_visible(text: str) -> bool:
    """Whether all characters are visible. Only U+0020 is allowed as a space, not at either end."""
    return text.isprintable() and text == text.strip() and _INVISIBLE.search(text) is None


def is_public(address: Address) -> bool:
    """Whether an address is public, and so is an IPv4 address embedded in it."""
    return all(map(_is_public, _with_embedded(address)))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    return address in _GLOBAL_IPV6 and not any(address in network for network in _SPECIAL_IPV6)


def _with_embedded(address: Address) -> Iterator[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif (mapped := address.ipv4_mapped) is not None:
        yield mapped
    elif address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
