"""Compute the instances of a host and of its group, which other variables of the role derive from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from plugins.module_utils.ag_ui_units import UnitState

    HostVars = Mapping[str, Mapping[str, Any]]


def _is_loopback(address: str) -> bool:
    return address.startswith("127.")


def pending_ports(
    ports: Iterable[int],
    units: Mapping[str, UnitState],
    instances: Mapping[str, str],
    release: str,
    unit_name: str,
) -> list[str]:
    """Return the ports of instances that do not run a release, or would not after a restart.

    Args:
        ports: The ports of the instances of the host.
        units: The units on the host, by name.
        instances: The releases of the running containers, by container name.
        release: The release.
        unit_name: The name of the units without port.
    """
    pending = []
    for port in map(str, ports):
        unit = units.get(f"{unit_name}@{port}.service")
        running = instances.get(f"{unit_name}-{port}")
        if running != release or unit is None or unit["release"] != release:
            pending.append(port)
    return pending


def steps(hosts: Iterable[str], hostvars: HostVars) -> list[list[str]]:
    """Return host and port of each instance that is switched, in order.

    Args:
        hosts: The hosts of the play.
        hostvars: The variables of all hosts; `__ag_ui_pending` is a fact.
    """
    return [[host, port] for host in hosts for port in hostvars[host].get("__ag_ui_pending", [])]


def peer_endpoints(
    hosts: Iterable[str], hostvars: HostVars, host: str, ports: Iterable[int]
) -> list[str]:
    """Return the endpoints of the instances on the other hosts of a group.

    Args:
        hosts: The hosts of the group.
        hostvars: The variables of all hosts.
        host: The host whose variables are computed.
        ports: The ports of a host that does not set `ag_ui_backend_ports`.

    Returns:
        Addresses with ports, without those that only their own host reaches.
    """
    endpoints = []
    for peer in hosts:
        variables = hostvars[peer]
        address = variables.get("ag_ui_bind_address", "127.0.0.1")
        if peer != host and not _is_loopback(address):
            typed = variables.get("__ag_ui_typed", variables)
            endpoints += [f"{address}:{port}" for port in typed.get("ag_ui_backend_ports", ports)]
    return endpoints


def former_endpoints(
    hosts: Iterable[str], hostvars: HostVars, host: str, current: Iterable[str]
) -> list[str]:
    """Return the endpoints of existing instances of a group that are no longer configured.

    Args:
        hosts: The hosts of the group.
        hostvars: The variables of all hosts. Hosts without preflight count as without instances.
        host: The host whose variables are computed.
        current: The configured endpoints.
    """
    known = set(current)
    return [
        unit["endpoint"]
        for name in hosts
        for unit in hostvars[name].get("__ag_ui_preflight", {}).get("units", {}).values()
        if unit["endpoint"]
        and unit["endpoint"] not in known
        and (name == host or not _is_loopback(unit["endpoint"]))
    ]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., list[Any]]]:
        """Return the filters by their names in templates."""
        return {
            "ag_ui_pending_ports": pending_ports,
            "ag_ui_steps": steps,
            "ag_ui_peer_endpoints": peer_endpoints,
            "ag_ui_former_endpoints": former_endpoints,
        }
