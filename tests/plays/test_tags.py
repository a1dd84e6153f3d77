"""The tags of the role: which parts of a deployment each selects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = TOP / "roles/ag_ui_deployment/tasks"
COMMON = {"Command", "Lock", "Preflight", "Secrets", "Proxy", "Verify"}
RELEASE = COMMON | {"Account", "Image", "Release", "Units"}


def tasks_in(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a file, at any depth of blocks."""
    for entry in entries:
        parts = [entry[key] for key in ("block", "rescue", "always") if key in entry]
        for part in parts:
            yield from tasks_in(part)
        if not parts:
            yield entry


# --tags does not reach the tasks of an included file, so each include says that they always run.
@pytest.mark.parametrize("path", sorted(TASKS.glob("*.yml")), ids=lambda path: path.stem)
def test_included_tasks_run_whenever_their_include_does(path: Path) -> None:
    # The tags of a deployment do not apply to the tasks of other playbooks.
    if path.stem.startswith(("uninstall", "rollback", "rotate")):
        return
    for task in tasks_in(yaml.safe_load(path.read_text())):
        if "ansible.builtin.include_tasks" in task:
            assert task["ansible.builtin.include_tasks"]["apply"] == {"tags": ["always"]}


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("verify", {"Verify"}),
        ("proxy", COMMON),
        ("config", RELEASE),
        ("release", RELEASE),
        ("all", RELEASE | {"Packages", "Administrator"}),
    ],
)
def test_a_tag_selects_its_parts(tag: str, parts: set[str]) -> None:
    listed = subprocess.run(
        [
            *(Path(sys.executable).parent / "ansible-playbook", "--list-tasks", "--tags", tag),
            *("--inventory", "inventories/dev", "site.yml"),
        ],
        cwd=TOP,
        env=os.environ | {"ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(re.findall(r"ag_ui_deployment : (\w+) \| ", listed.stdout)) == parts
