"""Deploy the site again with other variables, as an operator does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.playbook import run_playbook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.playbook import Run

_TIMEOUT_SECONDS = 600


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
        *("--inventory", inventory, "--limit", "ag_ui", "--tags", tags),
        *("--extra-vars", json.dumps(variables or {}), "site.yml"),
        timeout=_TIMEOUT_SECONDS,
    )
