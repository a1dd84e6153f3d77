#!/usr/bin/python
"""Install several small files and directories in one step, and remove others from a directory."""

from __future__ import annotations

import grp
import os
import shutil
from pathlib import Path
from typing import TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_text_files import (
    write_atomically,
)

DOCUMENTATION = r"""
---
module: ag_ui_files
short_description: Install several small files and directories in one step
description:
  - Installs files with their content, for which M(ansible.builtin.copy) needs at least one connection each.
  - Removes everything else from the directory O(exclusive), such as files of an earlier version.
options:
  directories:
    description: Directories to create, each with mode 0755.
    type: list
    elements: path
    default: []
  files:
    description:
      - Files to install, each with C(path), C(mode), and either C(content) or C(src), a file on the target.
      - C(group) is the group of the file; if it is omitted, that of the user who runs the module. In check mode it need not exist.
    type: list
    elements: dict
    default: []
  exclusive:
    description: Directory in which only these files may be.
    type: path
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Install a program and its library
  hx_citadel.shield_ag_ui.ag_ui_files:
    files:
      - {path: /usr/local/sbin/example, mode: "0755", content: "#!/bin/sh\n"}
      - {path: /usr/local/lib/example/a.py, mode: "0644", content: "A = 1\n"}
    exclusive: /usr/local/lib/example
"""

RETURN = r"""
created:
  description: Directories that were created or got another mode, or in check mode would be.
  returned: success
  type: list
  elements: str
written:
  description: Files that were written, or in check mode would be.
  returned: success
  type: list
  elements: str
removed:
  description: Files and directories that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
"""


DIRECTORY_MODE = 0o755


class FileOptions(TypedDict):
    """An element of the option `files`."""

    path: str
    # Without a content, the file has that of `src`.
    content: str | None
    src: str | None
    # In octal notation.
    mode: str
    group: str | None


def content_of(file: FileOptions) -> str:
    """Return the content that the file must have."""
    return Path(file["src"]).read_text(encoding="utf-8") if file["src"] else file["content"] or ""


def group_of(file: FileOptions) -> int:
    """Return the id of the group that the file must have; -1 if that does not exist."""
    if not file["group"]:
        return os.getegid()
    try:
        return grp.getgrnam(file["group"]).gr_gid
    except KeyError:
        return -1


def is_installed(file: FileOptions) -> bool:
    """Whether the file exists with this content, mode and group."""
    path = Path(file["path"])
    try:
        status = path.stat()
        return (
            status.st_mode & 0o7777 == int(file["mode"], 8)
            and status.st_gid == group_of(file)
            and path.read_bytes() == content_of(file).encode()
        )
    except OSError:
        return False


def is_created(directory: Path) -> bool:
    """Whether the directory exists with its mode."""
    return directory.is_dir() and directory.stat().st_mode & 0o7777 == DIRECTORY_MODE


def create(directory: Path) -> None:
    """Create the directory, or correct its mode."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(DIRECTORY_MODE)


def others(directory: Path, files: list[FileOptions]) -> list[Path]:
    """Return what is in a directory besides the files; of a tree only its top."""
    kept = {Path(file["path"]) for file in files}
    needed = kept | {parent for path in kept for parent in path.parents}
    found: list[Path] = []
    for path in sorted(directory.rglob("*")):
        if path not in needed and not any(parent in found for parent in path.parents):
            found.append(path)
    return found


def main() -> None:
    """Install the files."""
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "path", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "src": {"type": "path"},
                    "mode": {"type": "str", "required": True},
                    "group": {"type": "str"},
                },
                "required_one_of": [["content", "src"]],
                "mutually_exclusive": [["content", "src"]],
            },
            "exclusive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    directories = [Path(directory) for directory in module.params["directories"]]
    created = [directory for directory in directories if not is_created(directory)]
    files: list[FileOptions] = module.params["files"]
    changed = [file for file in files if not is_installed(file)]
    exclusive = module.params["exclusive"]
    removed = others(Path(exclusive), files) if exclusive else []
    if not module.check_mode:
        for directory in created:
            create(directory)
        for path in removed:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for file in changed:
            write_atomically(
                Path(file["path"]), content_of(file), int(file["mode"], 8), group_of(file)
            )
    module.exit_json(
        changed=bool(created or changed or removed),
        created=[str(directory) for directory in created],
        written=[file["path"] for file in changed],
        removed=[str(path) for path in removed],
    )


if __name__ == "__main__":
    main()
