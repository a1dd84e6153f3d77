"""Which addresses the proxy's limits count as one client."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random

import pytest

from tests.support.playbook import TOP

SITE = (TOP / "roles/ag_ui_deployment/templates/nginx-site.conf.j2").read_text()


def limit_key(address: IPv4Address | IPv6Address) -> bytes:
    """Return the key under which nginx counts the address: the first matching rule applies."""
    _, _, rest = SITE.partition("map $binary_remote_addr $ag_ui_client_network {\n")
    rules, _, _ = rest.partition("}\n\n")
    assert rules.splitlines()[-1].split() == ["default", "$binary_remote_addr;"]
    patterns = re.findall(r'^ +"~(.+)" \$1;$', rules, flags=re.MULTILINE)
    assert len(patterns) == len(rules.splitlines()) - 1
    for pattern in patterns:
        if found := re.search(pattern.encode(), address.packed):
            return found[1]
    return address.packed


def test_every_limit_uses_the_client_network() -> None:
    zones = re.findall(r"^limit_(?:req|conn)_zone (\S+) ", SITE, flags=re.MULTILINE)
    assert zones == ["$ag_ui_client_network"] * 5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:0:ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001:0:0:2:3:4:5:6", "2001::2:ffff:0:0:1", True),
        ("::", "::1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        # Addresses that contain the bytes of line ends.
        ("a0a:a0a:a0a:a0a:a0a:a0a:a0a:a0a", "a0a:a0a:a0a:a0a::", True),
        ("10.10.10.10", "10.10.10.11", False),
    ],
)
def test_addresses_of_one_network_share_a_key(one: str, other: str, *, same: bool) -> None:
    assert (limit_key(ip_address(one)) == limit_key(ip_address(other))) is same


def test_every_address_maps_to_its_network() -> None:
    random = Random(1)
    for _ in range(2000):
        four = IPv4Address(random.getrandbits(32))
        assert limit_key(four) == four.packed
        groups = [random.choice([0, 0, 0x0A0A, 0xFFFF, random.getrandbits(16)]) for _ in range(8)]
        six = IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
        network = ip_network((six, 64), strict=False).network_address.packed[:8]
        assert limit_key(six) == (six.ipv4_mapped.packed if six.ipv4_mapped else network)
