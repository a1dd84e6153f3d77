#!/usr/bin/python
"""Record which packages the role installs, and remove them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_text_files import (
    write_atomically,
)

DOCUMENTATION = r"""
---
module: ag_ui_packages
short_description: Record which packages the role installs, and remove them
description:
  - >-
    Before an installation, O(state=before) saves which packages the host has. After it, O(state=recorded) adds the
    packages that the host has in addition to the record, their dependencies included. If the installation is
    interrupted, the next run completes the record.
  - >-
    With O(state=absent) it purges the recorded packages, except those that a package outside of the record needs, those in
    O(keep), and what these need in turn.
options:
  record:
    description: File with the names of the packages that the role has installed, one per line.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [before, recorded, absent]
    required: true
  keep:
    description: Packages to keep although they are in the record.
    type: list
    elements: str
    default: []
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Remove the packages that the role has installed
  hx_citadel.shield_ag_ui.ag_ui_packages:
    record: /var/lib/ag-ui/packages
    state: absent
"""

RETURN = r"""
removed:
  description: Packages that were purged, or in check mode would be.
  returned: success
  type: list
  elements: str
kept:
  description: Recorded packages that are kept because something else needs them.
  returned: success
  type: list
  elements: str
"""

APT_TIMEOUT_SECONDS = 600
# A line of `apt-get --simulate`: what it would do with which package.
STEP = re.compile(r"^(Inst|Remv|Purg) (\S+)", re.MULTILINE)
# Without it, maintainer scripts ask questions.
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


class Options(TypedDict):
    """The options of the module."""

    record: str
    state: str
    keep: list[str]


class PackagesError(Exception):
    """A package tool failed."""


def run(*command: str) -> str:
    """Run a package tool and return its output.

    Raises:
        PackagesError: With its error output.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=APT_TIMEOUT_SECONDS,
        env={**os.environ, **ENVIRONMENT},
    )
    if done.returncode:
        raise PackagesError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
    return done.stdout


def installed() -> set[str]:
    """Return the names of the installed packages."""
    listed = run("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n")
    lines = (line.partition(" ") for line in listed.splitlines())
    return {name for status, _, name in lines if status == "installed"}


def read_names(file: Path) -> set[str]:
    """Read a file with one name per line; a missing file has none."""
    return set(file.read_text(encoding="utf-8").split()) if file.is_file() else set()


def write_names(file: Path, names: set[str]) -> None:
    """Write a file with one name per line, atomically; without names it is removed."""
    if not names:
        file.unlink(missing_ok=True)
        return
    write_atomically(file, "".join(f"{name}\n" for name in sorted(names)))


def removable(recorded: set[str], keep: set[str]) -> set[str]:
    """Find the recorded packages whose removal changes no other package.

    Args:
        recorded: Installed packages of the record.
        keep: Those of them to keep.

    Returns:
        Packages that can be removed together.
    """
    candidates = recorded - keep
    while True:
        needed = set()
        for name in sorted(candidates):
            steps = STEP.findall(run("apt-get", "--simulate", "--yes", "purge", name))
            removed = {package.partition(":")[0] for step, package in steps if step != "Inst"}
            if removed - candidates or any(step == "Inst" for step, _ in steps):
                needed.add(name)
        if not needed:
            return candidates
        candidates -= needed


def remove_recorded(record: Path, keep: set[str], *, check: bool) -> tuple[set[str], set[str]]:
    """Purge recorded packages, and remove the record of what is gone.

    Args:
        record: File with the names.
        keep: Packages to keep.
        check: Whether to only report.

    Returns:
        The packages that were removed, and those that were kept.
    """
    recorded = read_names(record) & installed()
    removed = removable(recorded, keep)
    if not check:
        if removed:
            run("apt-get", "--yes", "purge", *sorted(removed))
        # The packages that are kept belong to whatever needs them.
        record.unlink(missing_ok=True)
    return removed, recorded - removed


def main() -> None:
    """Update the record, or remove what it lists."""
    module = AnsibleModule(
        argument_spec={
            "record": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "choices": ["before", "recorded", "absent"],
                "required": True,
            },
            "keep": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    record, changes = Path(params["record"]), not module.check_mode
    before = record.with_name(f"{record.name}.before")
    removed: set[str] = set()
    kept: set[str] = set()
    try:
        if params["state"] == "absent":
            removed, kept = remove_recorded(record, set(params["keep"]), check=not changes)
        elif params["state"] == "before":
            # An interrupted run has left the list of the packages before its installation.
            if changes and not before.exists():
                write_names(before, installed())
        elif changes and before.exists():
            write_names(record, read_names(record) | (installed() - read_names(before)))
            before.unlink()
    except PackagesError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(removed), removed=sorted(removed), kept=sorted(kept))


if __name__ == "__main__":
    main()
