"""Deploy the site again with other variables, go back, or interrupt a deployment, as an operator may."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.support.playbook import kill_playbook, run_playbook, start_playbook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.playbook import Run

_TIMEOUT_SECONDS = 900


def deploy(
    inventory: str, variables: Mapping[str, object] | None = None, *, tags: str = "all"
) -> Run:
    """Run site.yml on the backend hosts.

    Args:
        inventory: Path of the inventory.
        variables: Extra variables, which override those of the inventory.
        tags: The parts to run.
    """
    return run_playbook(
        *_arguments(inventory, "site.yml", variables), "--tags", tags, timeout=_TIMEOUT_SECONDS
    )


def run(inventory: str, playbook: str, variables: Mapping[str, object] | None = None) -> Run:
    """Run a playbook, such as `playbooks/rollback.yml`, on the backend hosts."""
    return run_playbook(*_arguments(inventory, playbook, variables), timeout=_TIMEOUT_SECONDS)


def _arguments(inventory: str, playbook: str, variables: Mapping[str, object] | None) -> list[str]:
    return [
        *("--inventory", inventory, "--limit", "ag_ui"),
        *("--extra-vars", json.dumps(variables or {}), playbook),
    ]


class RunningDeployment:
    """A deployment that runs during a block, whose end kills it."""

    def __init__(self, inventory: str, variables: Mapping[str, object] | None = None) -> None:
        self._arguments = _arguments(inventory, "site.yml", variables)

    def __enter__(self) -> Self:
        self._process = start_playbook(*self._arguments)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.communicate()

    def kill(self) -> None:
        """End the playbook and its workers at once, as a loss of the controller does."""
        kill_playbook(self._process)

    def wait(self, seconds: float) -> None:
        """Wait for this time, or until the playbook has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None
