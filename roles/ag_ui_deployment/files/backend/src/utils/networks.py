"""Networks of addresses: whoever has one address of a network can often have the others too."""

from ipaddress import IPv6Address, ip_address, ip_network

# A connection to the internet is given at least so much of IPv6.
_IPV6_PREFIX = 64


def network_of(address: str | None, ipv4_prefix: int = 32) -> str:
    """The /64 of an IPv6 address, or the network of this prefix of an IPv4 address.

    An IPv4 address that is written as IPv6 counts as IPv4; text that is no address is its own
    network.
    """
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
        parsed = parsed.ipv4_mapped
    return str(ip_network((parsed, ipv4_prefix), strict=False))
