"""Maps addresses to networks, since a client can often use all addresses of its network."""

from ipaddress import IPv6Address, ip_address, ip_network

# The smallest IPv6 network that providers assign to a connection.
_IPV6_PREFIX = 64


def network_of(address: str | None, ipv4_prefix: int = 32) -> str:
    """Return the network of an address in CIDR notation.

    Args:
        address: An IPv6 address, whose /64 is returned, or an IPv4 address, also if IPv4-mapped. Any
            other text is returned unchanged, and None as "unknown".
        ipv4_prefix: The prefix length for IPv4.
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
