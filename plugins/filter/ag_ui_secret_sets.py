"""Make one set of secrets of those that the hosts of a group have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Sets = Mapping[str, Mapping[str, str]]


def one_set(sets: Sets) -> dict[str, str]:
    """Each secret as the first host has it."""
    found: dict[str, str] = {}
    for values in sets.values():
        found = {**values, **found}
    return found


def differing(sets: Sets) -> list[str]:
    """Which hosts have another secret than the first, one sentence for each secret."""
    said = []
    for name, value in one_set(sets).items():
        first = next(host for host, values in sets.items() if name in values)
        others = [host for host, values in sets.items() if values.get(name, value) != value]
        if others:
            said.append(f"{name} of {', '.join(others)} is not that of {first}")
    return said


class FilterModule:
    """What Ansible takes from here."""

    def filters(self) -> dict[str, Callable[[Sets], object]]:
        """The filters by their names in templates."""
        return {"ag_ui_one_set": one_set, "ag_ui_differing": differing}
