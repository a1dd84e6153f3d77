"""Find the systemd units of the backend instances on a host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypedDict

PERMANENT = Path("/etc/systemd/system")
# Overrides /etc/systemd/system. An interrupted switch leaves the unit under trial here until a reboot.
TRIAL = Path("/run/systemd/system.control")
UNIT = "ag-ui-backend"


class UnitState(TypedDict):
    """The release that a unit starts, and the endpoint (`address:port`); empty if unknown."""

    # Also empty for a unit under trial, because the instance must be switched again.
    release: str
    endpoint: str


def enabled_units(permanent: Path = PERMANENT) -> list[str]:
    """Return the links to the role's units in the .wants directories, relative to `permanent`."""
    return sorted(str(link.relative_to(permanent)) for link in permanent.glob("*.wants/ag-ui*"))


def instance_units(permanent: Path = PERMANENT, trial: Path = TRIAL) -> dict[str, UnitState]:
    """Read which release each instance unit starts, and where the instance listens.

    Units that are not enabled count too: a deployment enables them only after all instances were switched.

    Args:
        permanent: Directory of the permanent units.
        trial: Directory of the units under trial.

    Returns:
        The state of each unit by its name.
    """
    pattern = f"{UNIT}@?*.service"
    files = [*permanent.glob(pattern), *trial.glob(pattern), *permanent.glob(f"*.wants/{pattern}")]
    states: dict[str, UnitState] = {}
    for unit in sorted({file.name for file in files}):
        port = unit.removesuffix(".service").partition("@")[2]
        # Earlier versions of the role had one template unit for all instances.
        paths = (trial / unit, permanent / unit, permanent / f"{UNIT}@.service")
        path = next((path for path in paths if path.is_file()), None)
        if path:
            text = path.read_text(encoding="utf-8")
            release = re.search(r"/releases/([^/\s]+)/", text)
            endpoint = re.search(r"http://([^\s;/]+)/health/ready", text)
            states[unit] = {
                "release": release[1] if release and path.parent != trial else "",
                "endpoint": endpoint[1].replace("%i", port) if endpoint else "",
            }
    return states
