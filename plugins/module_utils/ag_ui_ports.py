"""Check that the ports of a deployment are free."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TypedDict

# State of a listening socket in /proc/net/tcp.
LISTENING = "0A"


class _RequiredPort(TypedDict):
    # Name of the role's variable.
    variable: str
    port: int


class PortOptions(_RequiredPort, total=False):
    """An element of the option `ports` of the module."""

    # The systemd unit or the name of the process of the role that may listen on the port.
    unit: str
    process: str


def listening_inodes(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port, on any address."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def processes(inodes: set[str]) -> dict[str, str]:
    """Return the names of the processes that have one of the sockets open, by process id."""
    links = {f"socket:[{inode}]" for inode in inodes}
    names = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            if any(str(file.readlink()) in links for file in (process / "fd").iterdir()):
                names[process.name] = (process / "comm").read_text(encoding="utf-8").strip()
    return names


def is_running(unit: str) -> bool:
    """Whether systemd runs this unit; then the listener is the instance itself."""
    completed = subprocess.run(
        ["systemctl", "show", "--property=ActiveState", "--value", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    return completed.stdout.strip() in {"active", "activating", "deactivating", "reloading"}


def port_problems(option: PortOptions) -> list[str]:
    """Check that a port is free, or used by a unit or process of the role."""
    port = int(option["port"])
    inodes = listening_inodes(port)
    if not inodes or ("unit" in option and is_running(str(option["unit"]))):
        return []
    holders = processes(inodes)
    if "process" in option and set(holders.values()) == {option["process"]}:
        return []
    names = ", ".join(f"{name} (process {pid})" for pid, name in sorted(holders.items()))
    return [
        (
            f"{option['variable']}: port {port} of this host is in use by {names or 'another program'}. "
            f"Stop that program, or choose another port."
        )
    ]
