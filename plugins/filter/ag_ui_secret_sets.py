"""Merge the secrets of the hosts of a group into one set, and report differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    # Per host, in the order of the inventory: the values of its secrets by name.
    Sets = Mapping[str, Mapping[str, str]]
    # A registered result of the module ag_ui_secrets.
    Result = Mapping[str, Any]
    Hostvars = Mapping[str, Mapping[str, Any]]
    # State of the rotation of a secret, as in the module_utils ag_ui_rotation.
    Record = Mapping[str, Any]


# Secrets that operators may set as ag_ui_NAME.
_SETTABLE = ("jwt_secret", "mfa_key", "audit_key", "metrics_token")


def secret_sets(
    hosts: Iterable[str], hostvars: Hostvars, others: Iterable[Result]
) -> dict[str, dict[str, str]]:
    """Collect the secrets of each host of a group.

    Args:
        hosts: The hosts, in the order of the inventory.
        hostvars: The variables of all hosts, with `__ag_ui_own_secrets` of the hosts of the play.
        others: Results of reading the secrets of hosts outside the play, with the host as `item`.

    Returns:
        The secrets by host. What the inventory sets takes precedence over the files of the host. A value from before
        a step of a rotation, in which this host took part, is replaced by the one after it.
    """
    results = _results(hosts, hostvars, others)
    newest = _newest(results)
    sets: dict[str, dict[str, str]] = {}
    for host, result in results.items():
        own, states = result.get("values", {}), result.get("rotation", {})
        inventory = {name: hostvars[host].get(f"ag_ui_{name}", "") for name in _SETTABLE}
        rotated = {
            name: record["value"]
            for name, record in newest.items()
            if name in states or _is_of(record, own.get(name))
        }
        sets[host] = {**own, **rotated, **{name: it for name, it in inventory.items() if it}}
    return sets


def rotation(
    hosts: Iterable[str], hostvars: Hostvars, others: Iterable[Result]
) -> dict[str, Record]:
    """Merge the states of rotations; the arguments are those of `secret_sets`.

    Returns:
        The latest state of each secret, by its name.
    """
    return _newest(_results(hosts, hostvars, others))


def _results(
    hosts: Iterable[str], hostvars: Hostvars, others: Iterable[Result]
) -> dict[str, Result]:
    own = {host: hostvars[host].get("__ag_ui_own_secrets", {}) for host in hosts}
    return own | {result["item"]: result for result in others if result["item"] in own}


def _newest(results: Mapping[str, Result]) -> dict[str, Record]:
    newest: dict[str, Record] = {}
    for result in results.values():
        for name, record in result.get("rotation", {}).items():
            if name not in newest or newest[name]["serial"] < record["serial"]:
                newest[name] = record
    return newest


def _is_of(record: Record, value: str | None) -> bool:
    """Whether a value is one of a rotation."""
    return value in {record["value"], *(one["value"] for one in record["accepted"])}


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
    differences = []
    for name, value in one_set(sets).items():
        first = next(host for host, values in sets.items() if name in values)
        others = [host for host, values in sets.items() if values.get(name, value) != value]
        if others:
            differences.append(f"{name} of {', '.join(others)} is not that of {first}")
    return differences


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by their names in templates."""
        return {
            "ag_ui_secret_sets": secret_sets,
            "ag_ui_secret_rotation": rotation,
            "ag_ui_one_set": one_set,
            "ag_ui_differing": differing,
        }
