"""Which releases run, and checks of deployments."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from tests.scenarios.support.deployment import deploy

if TYPE_CHECKING:
    from tests.scenarios.support.site import Site
    from tests.support.playbook import Run

BACK_WITHIN: Final = 120.0
"""Seconds for instances to be healthy again, on a machine that is busy with other work."""


def releases(site: Site) -> dict[str, str]:
    """Return the release of each running instance."""
    return {
        name: str(site.inspect(name)["Config"]["Labels"]["ag-ui.release"])
        for name in site.containers()
    }


def reboot(site: Site) -> None:
    subprocess.run(["docker", "restart", "--time", "30", site.dev.name], check=True, timeout=120)
    site.wait_until_healthy(within=BACK_WITHIN)


def check_succeeded(done: Run) -> None:
    assert done.code == 0, f"{done.message}\n{done.output}"


def check_second_run_changes_nothing(inventory: str, variables: dict[str, object]) -> None:
    done = deploy(inventory, variables)
    check_succeeded(done)
    assert sum(done.changes.values()) == 0, done.output
