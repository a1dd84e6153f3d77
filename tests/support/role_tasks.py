"""Run files of the role's tasks, with a folder in place of the host."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.playbook import run_playbook
from tests.support.role_variables import DEFAULTS
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.playbook import Run


def run_role_tasks(
    folder: Path,
    tasks: Sequence[str],
    variables: Mapping[str, Any],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run the files on hx-dev-server, which is this machine.

    Args:
        folder: Where the play is written.
        tasks: The names of files in the folder tasks of the role, without `.yml`.
        variables: Extra variables beside the defaults of the role; some of them name paths in the folder.
        arguments: Further arguments of ansible-playbook.
        environment: Further environment variables.
    """
    steps = [
        {
            "name": f"Run {name}",
            "ansible.builtin.include_role": {"name": "ag_ui_deployment", "tasks_from": name},
        }
        for name in tasks
    ]
    play = {"hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": steps}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return run_playbook(
        *("--inventory", "hx-dev-server,", *arguments),
        *("--extra-vars", json.dumps({**DEFAULTS, **REQUIRED_VARIABLES, **local, **variables})),
        folder / "play.yml",
        environment=environment,
    )
