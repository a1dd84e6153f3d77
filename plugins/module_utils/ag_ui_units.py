"""Find the systemd units of the backend instances on a host."""

from __future__ import annotations

import re
from pathlib import Path

KEPT = Path("/etc/systemd/system")
# Overrides /etc/systemd/system. An interrupted switch leaves the unit under trial here until a reboot.
TRIED = Path("/run/systemd/system.control")
UNIT = "ag-ui-backend"


def enabled_units(kept: Path = KEPT) -> list[str]:
    """Return the links to the role's units in the .wants folders, relative to `kept`."""
    return sorted(str(link.relative_to(kept)) for link in kept.glob("*.wants/ag-ui*"))


def instance_units(kept: Path = KEPT, tried: Path = TRIED) -> dict[str, dict[str, str]]:
    """Read which release each instance unit starts, and where the instance listens.

    Units that are not enabled count too: a deployment enables them only after all instances were switched.

    Args:
        kept: Folder of the permanent units.
        tried: Folder of the units under trial.

    Returns:
        For each unit name `release` (its name) and `endpoint` (`address:port`); empty if unknown. `release`
        is also empty for a unit under trial, because the instance must be switched again.
    """
    pattern = f"{UNIT}@?*.service"
    files = [*kept.glob(pattern), *tried.glob(pattern), *kept.glob(f"*.wants/{pattern}")]
    found = {}
    for unit in sorted({file.name for file in files}):
        port = unit.removesuffix(".service").partition("@")[2]
        # Earlier versions of the role had one template unit for all instances.
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
