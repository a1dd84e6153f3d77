"""Run ansible-playbook and read what it did in the form that is made for programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TaskResult:
    """What a task did on a host, or one round of its loop."""

    task: str
    host: str
    result: Mapping[str, Any]

    @property
    def changed(self) -> bool:
        return bool(self.result.get("changed"))

    @property
    def failed(self) -> bool:
        return bool(self.result.get("failed") or self.result.get("unreachable"))


@dataclass(frozen=True)
class Run:
    """A run of a playbook."""

    code: int
    results: list[TaskResult]
    changes: dict[str, int]
    """Tasks that changed something, for each host."""
    errors: str
    """Standard error, and standard output where it is no report."""

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that were run, in order."""
        return list(dict.fromkeys(result.task for result in self.results))

    @property
    def message(self) -> str:
        """What failed tasks say, without line ends."""
        said = [str(one.result.get("msg", "")) for one in self.results if one.failed]
        return re.sub(r"\s+", " ", " ".join([*said, self.errors]))

    @property
    def output(self) -> str:
        """All that was said, for reading."""
        return json.dumps([dict(one.result) for one in self.results], indent=1) + self.errors


def run_playbook(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> Run:
    """Run ansible-playbook with these arguments, and with the colours that its user may have asked for."""
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", *arguments],
        cwd=TOP,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(TOP / "roles"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    before, brace, report = done.stdout.partition("{\n")
    try:
        told = json.loads(brace + report)
    except ValueError:
        return Run(done.returncode, [], {}, done.stdout + done.stderr)
    changes = {host: counts["changed"] for host, counts in told["stats"].items()}
    return Run(done.returncode, list(_results(told)), changes, before + done.stderr)


def _results(told: Mapping[str, Any]) -> Iterator[TaskResult]:
    for play in told["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                for one in result.get("results") or [result]:
                    yield TaskResult(task["task"]["name"], host, one)
