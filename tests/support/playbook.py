"""Run ansible-playbook and parse its JSON output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TOP = Path(__file__).resolve().parents[2]
# Select the JSON output; it contains no colours, even if the user's settings force them.
_JSON = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}


@dataclass(frozen=True)
class TaskResult:
    """The result of a task on a host, or of one iteration of its loop."""

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
    """The result of a playbook run."""

    code: int
    results: list[TaskResult]
    changes: dict[str, int]
    """The number of changed tasks by host."""
    errors: str
    """Standard error, and standard output if it is not JSON."""

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that ran, in order."""
        return list(dict.fromkeys(result.task for result in self.results))

    @property
    def message(self) -> str:
        """The messages of failed tasks, with white space collapsed."""
        messages = [str(one.result.get("msg", "")) for one in self.results if one.failed]
        return re.sub(r"\s+", " ", " ".join([*messages, self.errors]))

    @property
    def diffs(self) -> list[str]:
        """Names of the tasks that show a diff."""
        return [one.task for one in self.results if _differs(one.result.get("diff"))]

    @property
    def output(self) -> str:
        """The whole output, for the message of a failed assertion."""
        return json.dumps([dict(one.result) for one in self.results], indent=1) + self.errors


def _differs(diff: Any) -> bool:
    parts = diff if isinstance(diff, list) else [diff or {}]
    return any(part.get("prepared") or part.get("before") != part.get("after") for part in parts)


def run_playbook(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> Run:
    """Run ansible-playbook with these arguments; keeps the colour settings of the user."""
    with start_playbook(*arguments, environment={**(environment or {}), **_JSON}) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    preamble, brace, report = output.partition("{\n")
    try:
        report = json.loads(brace + report)
    except ValueError:
        return Run(process.returncode, [], {}, output + errors)
    changes = {host: counts["changed"] for host, counts in report["stats"].items()}
    return Run(process.returncode, list(_results(report)), changes, preamble + errors)


def start_playbook(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start ansible-playbook in a process group of its own, with pipes for its output.

    Args:
        arguments: The arguments of ansible-playbook.
        environment: Further variables, such as ANSIBLE_STDOUT_CALLBACK for another output than JSON.
    """
    tools = Path(sys.executable).parent
    return subprocess.Popen(
        [tools / "ansible-playbook", *arguments],
        cwd=TOP,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(TOP / "roles"),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{tools}:{os.environ['PATH']}",
            **_JSON,
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_playbook(process: subprocess.Popen[str]) -> None:
    """End ansible-playbook, if it runs, and its workers at once, as a loss of the controller does."""
    # Workers have process groups of their own. While it is stopped, ansible-playbook starts no others.
    process.send_signal(signal.SIGSTOP)
    if process.returncode is not None:
        return
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    workers = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    for pid in (*workers, process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def host_variables(inventory: str, host: str, names: Iterable[str]) -> dict[str, str]:
    """Return variables of a host with all references resolved; undefined ones are empty strings."""
    templates = {name: f"{{{{ {name} | default('') }}}}" for name in names}
    shown = subprocess.run(
        [
            *("ansible", host, "--inventory", inventory, "--module-name", "ansible.builtin.debug"),
            *("--args", json.dumps({"msg": templates})),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", **_JSON},
    )
    [result] = _results(json.loads(shown.stdout))
    msg: dict[str, str] = result.result["msg"]
    return msg


def _results(report: Mapping[str, Any]) -> Iterator[TaskResult]:
    for play in report["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                for one in result.get("results") or [result]:
                    yield TaskResult(task["task"]["name"], host, one)
