#!/usr/bin/python
"""Compute a digest of the inputs of an image build, and pack the build context."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_build_context
short_description: Name an image by what goes into it
description:
  - Runs on the controller. The digest covers names, contents and execute bits of the files, the
    build arguments, the certificate authorities and the base image, and nothing else, so that the
    same tree has the same digest in every checkout.
options:
  path:
    description: Folder of the Dockerfile.
    type: path
    required: true
  exclude:
    description: Patterns of file and folder names that are no part of the image.
    type: list
    elements: str
    default: []
  build_arguments:
    description: Arguments of the build.
    type: dict
    default: {}
  ca_bundle:
    description: File to add to the archive as C(ca-bundle.crt).
    type: path
  dest:
    description: Archive to write; none to name the image only.
    type: path
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Name the image
  hx_citadel.shield_ag_ui.ag_ui_build_context:
    path: files/backend
    exclude: [tests]
  delegate_to: localhost
"""

RETURN = r"""
digest:
  description: SHA-256 of all that the image is made of.
  returned: success
  type: str
files:
  description: Number of files in the build context.
  returned: success
  type: int
"""

BUNDLE = "ca-bundle.crt"


def context_files(root: Path, exclude: list[str]) -> list[Path]:
    """List the files of the build context, in the same order on every machine.

    Args:
        root: Folder of the Dockerfile.
        exclude: Glob patterns for names of files and folders to leave out.

    Returns:
        Paths that begin with `root`.
    """

    def wanted(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in exclude)

    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(filter(wanted, folders))
        found += [Path(folder, name) for name in sorted(filter(wanted, files))]
    return found


def contents(root: Path, exclude: list[str], ca_bundle: str | None) -> list[tuple[str, int, bytes]]:
    """Read the build context; modes are normalized, because they depend on the umask of a checkout.

    Args:
        root: Folder of the Dockerfile.
        exclude: Glob patterns for names of files and folders to leave out.
        ca_bundle: File to add as `ca-bundle.crt`, if any.

    Returns:
        Name relative to `root`, mode and content of each file.
    """
    found = []
    for path in context_files(root, exclude):
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        found.append((path.relative_to(root).as_posix(), mode, path.read_bytes()))
    if ca_bundle:
        found.append((BUNDLE, 0o644, Path(ca_bundle).read_bytes()))
    return found


def digest_of(files: list[tuple[str, int, bytes]], arguments: dict[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of the files and the build arguments."""
    total = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    for name, mode, data in files:
        total.update(json.dumps([name, mode, hashlib.sha256(data).hexdigest()]).encode())
    return total.hexdigest()


def pack(files: list[tuple[str, int, bytes]], dest: str) -> None:
    """Write the files as a tar.gz archive, without timestamps and owners so that it is reproducible."""
    with (
        gzip.GzipFile(dest, "wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, mode, data in files:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(data)
            archive.addfile(entry, io.BytesIO(data))


def main() -> None:
    """Compute the digest, and write the archive if `dest` is set."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "build_arguments": {"type": "dict", "default": {}},
            "ca_bundle": {"type": "path"},
            "dest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    root = Path(wanted["path"])
    if not (root / "Dockerfile").is_file():
        module.fail_json(msg=f"There is no Dockerfile in {root}.")
    files = contents(root, wanted["exclude"], wanted["ca_bundle"])
    writes = bool(wanted["dest"])
    if writes and not module.check_mode:
        pack(files, wanted["dest"])
    digest = digest_of(files, wanted["build_arguments"])
    module.exit_json(changed=writes, digest=digest, files=len(files))


if __name__ == "__main__":
    main()
