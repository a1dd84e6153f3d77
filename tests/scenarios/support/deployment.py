"""Deploy the site again, as an operator does, with other variables."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).parents[3]
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Deployment:
    """How a run of the playbook ended."""

    code: int
    output: str

    @property
    def message(self) -> str:
        """What was printed, without the wrapping."""
        return re.sub(r"\s+", " ", self.output)


def deploy(inventory: str, variables: Mapping[str, object] | None = None) -> Deployment:
    """Run site.yml on the hosts of the backend, with variables that win over the inventory's."""
    done = subprocess.run(
        [
            *("ansible-playbook", "--inventory", inventory, "--limit", "ag_ui"),
            *("--extra-vars", json.dumps(variables or {}), "site.yml"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    return Deployment(done.returncode, done.stdout + done.stderr)
