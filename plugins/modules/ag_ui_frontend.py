#!/usr/bin/python
"""Install a version of a site's frontend beside the former ones."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_frontend_files import (  # type: ignore[import-not-found]
    VERSION_LENGTH,
    FrontendError,
    read_frontend,
    version_of,
)

DOCUMENTATION = r"""
---
module: ag_ui_frontend
short_description: Install a version of a frontend beside the former ones
description:
  - Writes the files to the directory O(version) in O(directory), in one step and completely. A version that is there is not changed.
  - >-
    The directory C(hashed) in O(directory) has the files of all versions whose names match O(hashed), as hard links, so
    that pages of a former version find theirs.
  - A new version removes former ones that are neither named in O(configurations) nor among the newest.
options:
  directory:
    description: Directory of the versions.
    type: path
    required: true
  version:
    description: Digest of the files, as M(hx_citadel.shield_ag_ui.ag_ui_frontend_source) returns it.
    type: str
    required: true
  src:
    description: Archive on the target, as M(hx_citadel.shield_ag_ui.ag_ui_frontend_source) writes it.
    type: path
    required: true
  hashed:
    description: Regular expression for the names of files that never change, since they have a digest of their content.
    type: str
    required: true
  configurations:
    description: Absolute glob patterns of nginx files. A version that one of them names is not removed.
    type: list
    elements: str
    default: []
  keep:
    description: Number of newest versions to keep in any case.
    type: int
    default: 5
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Install the frontend
  hx_citadel.shield_ag_ui.ag_ui_frontend:
    directory: /var/lib/ag-ui/frontend
    version: 9f0c0d3a4b6e1f2d
    src: /var/lib/ag-ui/frontend.tar.gz
    hashed: assets/
    configurations: [/etc/nginx/conf.d/ag-ui.conf]
"""

RETURN = r"""
removed:
  description: Versions that were removed.
  returned: success
  type: list
  elements: str
"""

POOL = "hashed"


class Options(TypedDict):
    """The options of the module."""

    directory: str
    version: str
    src: str
    hashed: str
    configurations: list[str]
    keep: int


def write(path: Path, content: bytes) -> None:
    """Write a file whose time depends on its content.

    nginx makes the ETag of a file from its time and size. So a changed file of the same size has another
    ETag, and an unchanged one has the same ETag in all versions and on all hosts.
    """
    path.write_bytes(content)
    time = int(hashlib.sha256(content).hexdigest()[:8], 16)
    os.utime(path, (time, time))


def install(files: dict[str, bytes], directory: Path, version: str, hashed: str) -> list[str]:
    """Install a version.

    Args:
        files: Contents by name.
        directory: Directory of the versions.
        version: The new version.
        hashed: Regular expression for the names of files that never change.

    Returns:
        Names that match `hashed` and had another content in a former version.
    """
    never_changing = re.compile(hashed)
    temporary, pool = directory / f".new-{version}", directory / POOL
    changed = []
    shutil.rmtree(temporary, ignore_errors=True)
    for name, content in files.items():
        path, pooled = temporary / name, pool / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not never_changing.match(name):
            write(path, content)
            continue
        if pooled.is_file():
            if pooled.read_bytes() == content:
                os.link(pooled, path)
                continue
            changed.append(name)
        write(path, content)
        pooled.parent.mkdir(parents=True, exist_ok=True)
        link = pooled.with_name(f".new-{version}")
        link.unlink(missing_ok=True)
        os.link(path, link)
        link.replace(pooled)
    # Otherwise a power failure could leave a version whose files are empty.
    os.sync()
    temporary.rename(directory / version)
    return changed


def unused_versions(params: Options) -> list[Path]:
    """Return the former versions to remove."""
    configurations = [
        path for pattern in params["configurations"] for path in Path("/").glob(pattern.lstrip("/"))
    ]
    named = "".join(path.read_text(encoding="utf-8", errors="replace") for path in configurations)
    versions = [
        path
        for path in Path(params["directory"]).iterdir()
        if re.fullmatch(rf"[0-9a-f]{{{VERSION_LENGTH}}}", path.name)
    ]
    versions.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [
        path
        for path in versions[params["keep"] :]
        if path.name not in named and path.name != params["version"]
    ]


def remove(versions: list[Path], directory: Path) -> None:
    """Remove versions, the files that only they had, and what an interrupted run has left."""
    for path in (*versions, *directory.glob(".new-*")):
        shutil.rmtree(path)
    for path in (directory / POOL).rglob("*"):
        if path.is_file() and path.stat().st_nlink == 1:
            path.unlink()


def main() -> None:
    """Install the version, and remove former ones."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "src": {"type": "path", "required": True},
            "hashed": {"type": "str", "required": True},
            "configurations": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    directory = Path(params["directory"])
    is_new = not (directory / params["version"]).is_dir()
    if module.check_mode or not is_new:
        module.exit_json(changed=is_new, removed=[])
    try:
        files = read_frontend(Path(params["src"]))
    except FrontendError as error:
        module.fail_json(msg=str(error))
    if version_of(files) != params["version"]:
        module.fail_json(
            msg="The frontend has changed since it was checked, so it was not installed. Deploy again."
        )
    # nginx must be able to read them, whatever the umask of root.
    os.umask(0o022)
    directory.mkdir(parents=True, exist_ok=True)
    changed = install(files, directory, params["version"], params["hashed"])
    if changed:
        module.warn(
            f"{', '.join(changed)}: the content has changed, but browsers keep files with such names for a year, because "
            "they look as if they had a digest. Give it another name."
        )
    removed = unused_versions(params)
    remove(removed, directory)
    module.exit_json(changed=True, removed=[path.name for path in removed])


if __name__ == "__main__":
    main()
