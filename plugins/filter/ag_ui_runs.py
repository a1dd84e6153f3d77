"""Compare runs of playbooks, which hold the lock of a host."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def run_has_ended(run: str, own: str) -> bool:
    """Whether a run has certainly ended.

    Args:
        run: The controller, the process id and the start time of the run, separated by spaces.
        own: The same of this run.

    Returns:
        False for a run of another controller, whose processes are not visible here.
    """
    controller, _, process = run.partition(" ")
    pid, _, started = process.partition(" ")
    if controller != own.partition(" ")[0] or not pid.isdigit():
        return False
    found = subprocess.run(
        ["ps", "-o", "lstart=", "-p", pid],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    # A later process may have the same id.
    return found.stdout.strip() != started.strip()


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., bool]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_run_has_ended": run_has_ended}
