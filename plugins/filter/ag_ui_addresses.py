"""Find invalid addresses and networks, which the backend and nginx would reject later."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def is_network(text: str) -> bool:
    """Whether the text is an IP address, or a network in CIDR notation without host bits."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def no_networks(values: Iterable[object]) -> list[str]:
    """Return the values that are neither an IP address nor a network."""
    return [text for text in map(str, values) if not is_network(text)]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[[Iterable[object]], list[str]]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_no_networks": no_networks}
