"""Hosts in whatever notation, and whether they are public."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL_MAX = 2048
# As browsers decide: a host whose last label is a number is an IPv4 address or nothing.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*"
)
# A zero before further digits of a number: octal to some, decimal to others.
_AMBIGUOUS = re.compile(r"(?:^|\.)0[0-9]")
# Characters that are shown as nothing, though they count as printable; IDNA drops most of them.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# From IANA's registries of special-purpose addresses; Python's own lists differ by version. Last,
# Azure's metadata service: it has a public address.
_SPECIAL_IPV4 = [
    ipaddress.IPv4Network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3", "168.63.129.16/32",
    )
]  # fmt: skip
# What is given to the public of IPv6, and what is special in it.
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV6 = [ipaddress.IPv6Network(one) for one in ("2001::/23", "2001:db8::/32", "3fff::/20")]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class TargetRefusedError(ValueError):
    """The address is none that a tool may be sent to; the message says why."""


def parse_url(url: str) -> SplitResult:
    """The parts of an address that can be crawled. Raises TargetRefusedError."""
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
    """An address with its host as we read it, so that nobody reads another one.

    Raises TargetRefusedError.
    """
    parts = parse_url(url)
    host = canonical_host(parts.hostname or "")
    name = f"[{host}]" if isinstance(host, ipaddress.IPv6Address) else str(host)
    port = "" if parts.port is None else f":{parts.port}"
    return parts._replace(netloc=name + port).geturl()


def canonical_host(host: str) -> str | Address:
    """A host as the resolver understands it: an address in whatever notation, or a name."""
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
    """Whether all characters are shown; of spaces only the usual one is, between others."""
    return text.isprintable() and text == text.strip() and _INVISIBLE.search(text) is None


def is_public(address: Address) -> bool:
    """Whether an address, and each that it carries inside, can be reached from anywhere."""
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
