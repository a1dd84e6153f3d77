"""Hosts in whatever notation, and whether they are public."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL_MOST = 2048
# As browsers decide: a host whose last label is a number is an IPv4 address or nothing.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*"
)
# A zero before further digits of a number: octal to some, decimal to others.
_AMBIGUOUS = re.compile(r"(?:^|\.)0[0-9]")
# What the machines of a cloud are told their secrets by, at a public address.
_AZURE_METADATA = ipaddress.IPv4Address("168.63.129.16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


class TargetRefusedError(ValueError):
    """The address is none that a tool may be sent to; the message says why."""


def parse_url(url: str) -> SplitResult:
    """The parts of an address that can be crawled. Raises TargetRefusedError."""
    if len(url) > _URL_MOST:
        raise TargetRefusedError(f"is longer than {_URL_MOST} characters")
    if any(one.isspace() or not one.isprintable() or one == "\\" for one in url):
        raise TargetRefusedError("has spaces, control characters or backslashes; encode them")
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


def is_public(address: Address) -> bool:
    """Whether an address, and each that it carries inside, can be reached from anywhere."""
    return all(map(_is_public, _with_embedded(address)))


def _is_public(address: Address) -> bool:
    is_local = address.is_link_local or (
        isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    )
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not (is_local or is_special or address == _AZURE_METADATA)


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
        if address.teredo is not None:
            yield from address.teredo
        if address in _IPV4_COMPATIBLE:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
