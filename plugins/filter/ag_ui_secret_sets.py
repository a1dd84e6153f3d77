"""Merge the secrets of the hosts of a group into one set, and report differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Per host, in the order of the inventory: the values of its secrets by name.
    Sets = Mapping[str, Mapping[str, str]]


def one_set(sets: Sets) -> dict[str, str]:
    """Merge the sets; for each secret the value of the first host that has it."""
    found: dict[str, str] = {}
    for values in sets.values():
        found = {**values, **found}
    return found


def differing(sets: Sets) -> list[str]:
    """Find secrets that differ between hosts.

    Args:
        sets: Secrets of each host. A host that lacks a secret does not count as different.

    Returns:
        One sentence for each such secret, with the names of the hosts and without the value.
    """
    said = []
    for name, value in one_set(sets).items():
        first = next(host for host, values in sets.items() if name in values)
        others = [host for host, values in sets.items() if values.get(name, value) != value]
        if others:
            said.append(f"{name} of {', '.join(others)} is not that of {first}")
    return said


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[[Sets], object]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_one_set": one_set, "ag_ui_differing": differing}
