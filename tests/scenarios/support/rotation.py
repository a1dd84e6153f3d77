"""Rotate the secrets of the site, as an operator does, also with an interruption."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.playbook import kill_playbook, run_playbook, start_playbook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.playbook import Run

_PLAYBOOK = "playbooks/rotate_secrets.yml"
_TIMEOUT_SECONDS = 900
# One line for each task when it begins.
_TEXT = {
    "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
    "ANSIBLE_NOCOLOR": "1",
    "PYTHONUNBUFFERED": "1",
}


def rotate(inventory: str, variables: Mapping[str, object]) -> Run:
    """Run the playbook with these variables on all hosts."""
    return run_playbook(
        *("--inventory", inventory, "--extra-vars", json.dumps(variables), _PLAYBOOK),
        timeout=_TIMEOUT_SECONDS,
    )


def interrupt(inventory: str, variables: Mapping[str, object], task: str) -> None:
    """Run the playbook, and kill it with all of its processes when a task with this name begins."""
    arguments = ("--inventory", inventory, "--extra-vars", json.dumps(variables), _PLAYBOOK)
    with start_playbook(*arguments, environment=_TEXT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("TASK [") and task in line:
                break
        else:
            output = "".join(seen) + process.stderr.read()
            raise AssertionError(f"the playbook ended before {task}:\n{output}")
        kill_playbook(process)
