"""Processes of the site, their memory, and the metrics and logs of the instances."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.scenarios.support.http import request

if TYPE_CHECKING:
    from tests.scenarios.support.site import Machine, Site

UNITS: Final = {"nginx": "nginx.service", "docker": "docker.service"}
MEMORY: Final = """
field=$1
shift
for name in "$@"; do
    grep "$field" /proc/$(docker inspect --format '{{.State.Pid}}' "$name")/status
done
"""


def processes(site: Site) -> dict[str, str]:
    """Return an identity for each process of the service, which changes when it is replaced."""
    names = [site.container(port) for port in site.ports]
    units = [site.unit(port) for port in site.ports]
    shown = site.dev.run("docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *names)
    restarts = [unit["NRestarts"] for unit in _units(site.dev, *units)]
    found = {
        f"instance {port}": f"{started}, restarts: {count}"
        for port, started, count in zip(site.ports, shown.splitlines(), restarts, strict=True)
    }
    for name, unit in zip(UNITS, _units(site.dev, *UNITS.values()), strict=True):
        found[name] = unit["MainPID"]
    for kind in ("redis", "postgresql"):
        [unit] = _units(site.datastores, *site.datastore_units(kind))
        found[kind] = unit["MainPID"]
    return found


def _units(machine: Machine, *units: str) -> list[dict[str, str]]:
    shown = machine.systemctl("show", "--property=MainPID,NRestarts", *units)
    return [
        dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n")
    ]


def memory(site: Site) -> dict[int, float]:
    """Return the resident memory of each instance in MiB, by port."""
    return _memory(site, "VmRSS")


def peak_memory(site: Site) -> dict[int, float]:
    """Return the peak resident memory since the start of each instance in MiB, by port."""
    return _memory(site, "VmHWM")


def _memory(site: Site, field: str) -> dict[int, float]:
    names = [site.container(port) for port in site.ports]
    lines = site.dev.run("sh", "-c", MEMORY, "sh", field, *names).splitlines()
    return {port: int(line.split()[1]) / 1024 for port, line in zip(site.ports, lines, strict=True)}


def counted(site: Site) -> dict[str, float]:
    """Return the counters of /metrics, summed over the instances; missing names count as 0."""
    total: dict[str, float] = defaultdict(float)
    for instance in site.instances:
        answer = request(instance, "GET", "/metrics", token=site.settings["METRICS_TOKEN"])
        assert answer.status == 200, answer
        for family in text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                total[f"{sample.name}{{{labels}}}" if labels else sample.name] += sample.value
    return total


def logged(site: Site, event: str, since: float) -> list[dict[str, Any]]:
    """Return the instances' log entries for an event since a time (Unix time in seconds)."""
    journal = "journalctl --output=cat --unit='ag-ui-backend@*'"
    # journalctl ends with 1 if no entry matches.
    lines = site.dev.run("sh", "-c", f"{journal} --since=@{since:.3f} --grep={event} || [ $? = 1 ]")
    entries = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry.get("event") == event]
