"""Tell what is no address, as the backend and the proxy would find out later."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def is_network(text: str) -> bool:
    """Whether it is an IP address, or a network without bits of a host."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def no_networks(values: Iterable[object]) -> list[str]:
    """Those of the values that are neither an address nor a network."""
    return [text for text in map(str, values) if not is_network(text)]


class FilterModule:
    """What Ansible takes from here."""

    def filters(self) -> dict[str, Callable[[Iterable[object]], list[str]]]:
        """The filters by their names in templates."""
        return {"ag_ui_no_networks": no_networks}
