#!/usr/bin/python
"""Install several small files in one step, and remove others from a directory."""

from __future__ import annotations

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
short_description: Install several small files in one step
description:
  - Installs public files with their content, for which M(ansible.builtin.copy) needs one connection each.
  - Removes everything else from the directory O(exclusive), such as files of an earlier version.
options:
  files:
    description: Files to install, each with C(path), C(content) and C(mode).
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


class FileOptions(TypedDict):
    """An element of the option `files`."""

    path: str
    content: str
    # In octal notation.
    mode: str


def is_installed(file: FileOptions) -> bool:
    """Whether the file exists with this content and mode."""
    path = Path(file["path"])
    try:
        mode = path.stat().st_mode & 0o7777
        return mode == int(file["mode"], 8) and path.read_bytes() == file["content"].encode()
    except OSError:
        return False


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
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "required": True},
                },
            },
            "exclusive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    files: list[FileOptions] = module.params["files"]
    changed = [file for file in files if not is_installed(file)]
    exclusive = module.params["exclusive"]
    removed = others(Path(exclusive), files) if exclusive else []
    if not module.check_mode:
        for path in removed:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for file in changed:
            write_atomically(Path(file["path"]), file["content"], int(file["mode"], 8))
    module.exit_json(
        changed=bool(changed or removed),
        written=[file["path"] for file in changed],
        removed=[str(path) for path in removed],
    )


if __name__ == "__main__":
    main()
