"""The site that the command works on: its instances, and who uses the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_lock_file import read
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import (
    read_site,
    unit_of,
)

from ag_ui_command.errors import NO_DEPLOYMENT, REFUSED, CommandError

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site


def load_site(path: Path) -> Site:
    """Read the description of the site.

    Raises:
        CommandError: There is none.
    """
    site = read_site(path)
    if site is None:
        raise CommandError(
            f"{path} is missing or damaged. Deploy to this host, which writes it.", NO_DEPLOYMENT
        )
    return site


def unit_for(site: Site, port: int) -> str:
    """Return the unit of an instance.

    Raises:
        CommandError: No instance has this port.
    """
    if port not in site["ports"]:
        known = ", ".join(map(str, site["ports"]))
        raise CommandError(f"No instance has port {port}. Choose one of {known}.", REFUSED)
    return unit_of(site, port)


def require_unlocked(site: Site) -> None:
    """Check that no deployment or rollback is going on.

    Raises:
        CommandError: One has the lock.
    """
    lock = read(Path(site["lock"]))
    if lock is not None:
        raise CommandError(
            f"{lock.get('holder', 'Somebody')} has had the lock of this host since "
            f"{lock.get('since', 'an unknown time')}, for a {lock.get('purpose', 'deployment')}. Wait until that has "
            "ended. If it was killed, run it again.",
            REFUSED,
        )


def operator() -> str:
    """Return who uses the command, and where."""
    return f"{os.environ.get('SUDO_USER') or 'root'}@{os.uname().nodename}"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the host; the caller checks its exit status.

    Raises:
        CommandError: It is not installed.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be run: {error}") from error


def require_success(*command: str) -> None:
    """Run a program that must succeed.

    Raises:
        CommandError: It fails; with its own words.
    """
    done = run(*command)
    if done.returncode:
        raise CommandError(
            f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}"
        )
