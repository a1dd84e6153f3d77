"""The units of instances on a host."""

from __future__ import annotations

import re
from pathlib import Path

KEPT = Path("/etc/systemd/system")
# Systemd prefers it. A switch that was cut short leaves there what it has tried, until a reboot.
TRIED = Path("/run/systemd/system.control")
UNIT = "ag-ui-backend"


def enabled_units(kept: Path = KEPT) -> list[str]:
    """Links in the .wants folders of systemd."""
    return sorted(str(link.relative_to(kept)) for link in kept.glob("*.wants/ag-ui*"))


def instance_units(kept: Path = KEPT, tried: Path = TRIED) -> dict[str, dict[str, str]]:
    """What each unit of an instance starts, and where that listens.

    Units are enabled only after all instances were switched: one that is not may run as well. A unit that
    was tried and not kept names no release, since it has to be switched again.
    """
    pattern = f"{UNIT}@?*.service"
    files = [*kept.glob(pattern), *tried.glob(pattern), *kept.glob(f"*.wants/{pattern}")]
    found = {}
    for unit in sorted({file.name for file in files}):
        port = unit.removesuffix(".service").partition("@")[2]
        # A former version of the role had one unit for all instances.
        paths = (tried / unit, kept / unit, kept / f"{UNIT}@.service")
        path = next((path for path in paths if path.is_file()), None)
        if path:
            text = path.read_text(encoding="utf-8")
            release = re.search(r"/releases/([^/\s]+)/", text)
            endpoint = re.search(r"http://([^\s;/]+)/health/ready", text)
            found[unit] = {
                "release": release[1] if release and path.parent != tried else "",
                "endpoint": endpoint[1].replace("%i", port) if endpoint else "",
            }
    return found
