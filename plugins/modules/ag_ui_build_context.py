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
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_build_context
short_description: Compute the digest of a build context, and pack it
description:
  - The digest covers names, contents and execute bits of the files, the build arguments and the
    CA bundle, and nothing else, so that the same tree has the same digest in every checkout.
  - Writes a reproducible archive of the build context if O(dest) is set. Run it on the controller.
options:
  path:
    description: Directory of the Dockerfile.
    type: path
    required: true
  exclude:
    description:
      - Glob patterns of file and directory names to leave out.
      - A pattern that begins with a slash is compared with the path in O(path) instead of the name.
    type: list
    elements: str
    default: []
  build_arguments:
    description: Build arguments, which the digest covers.
    type: dict
    default: {}
  ca_bundle:
    description: File with CA certificates (PEM) to add to the build context as C(ca-bundle.crt).
    type: path
  dest:
    description: Archive (tar.gz) to write. If it is omitted, only the digest is computed.
    type: path
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Compute the digest of the build context
  hx_citadel.shield_ag_ui.ag_ui_build_context:
    path: files/backend
    exclude: [tests]
  delegate_to: localhost
"""

RETURN = r"""
digest:
  description: SHA-256 of the inputs of the build in hexadecimal.
  returned: success
  type: str
files:
  description: Number of files in the build context.
  returned: success
  type: int
"""

CA_BUNDLE_NAME = "ca-bundle.crt"


class ContextFile(NamedTuple):
    """A file of the build context; `name` is relative to the directory of the Dockerfile."""

    name: str
    mode: int
    content: bytes


def context_files(root: Path, exclude: list[str]) -> list[Path]:
    """List the files of the build context, in the same order on every machine.

    Args:
        root: Directory of the Dockerfile.
        exclude: Glob patterns for names of files and directories to leave out, or for paths below `root`
            if they begin with a slash.

    Returns:
        Paths that begin with `root`.
    """

    def is_included(path: Path) -> bool:
        from_root = f"/{path.relative_to(root).as_posix()}"
        return not any(
            fnmatch.fnmatch(from_root if pattern.startswith("/") else path.name, pattern)
            for pattern in exclude
        )

    paths = []
    for directory, directories, files in os.walk(root):
        directories[:] = sorted(name for name in directories if is_included(Path(directory, name)))
        paths += filter(is_included, (Path(directory, name) for name in sorted(files)))
    return paths


def read_context(root: Path, exclude: list[str], ca_bundle: str | None) -> list[ContextFile]:
    """Read the build context; modes are normalized, because they depend on the umask of a checkout.

    Args:
        root: Directory of the Dockerfile.
        exclude: Glob patterns as for `context_files`.
        ca_bundle: File to add as `ca-bundle.crt`, if any.
    """
    files = []
    for path in context_files(root, exclude):
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        files.append(ContextFile(path.relative_to(root).as_posix(), mode, path.read_bytes()))
    if ca_bundle:
        files.append(ContextFile(CA_BUNDLE_NAME, 0o644, Path(ca_bundle).read_bytes()))
    return files


def digest_of(files: list[ContextFile], build_arguments: dict[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of the files and the build arguments."""
    digest = hashlib.sha256(json.dumps(build_arguments, sort_keys=True).encode())
    for name, mode, content in files:
        digest.update(json.dumps([name, mode, hashlib.sha256(content).hexdigest()]).encode())
    return digest.hexdigest()


def pack(files: list[ContextFile], dest: str) -> None:
    """Write the files as a tar.gz archive, without timestamps and owners so that it is reproducible."""
    with (
        gzip.GzipFile(dest, "wb", compresslevel=6, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, mode, content in files:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(content)
            archive.addfile(entry, io.BytesIO(content))


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
    params = module.params
    root = Path(params["path"])
    if not (root / "Dockerfile").is_file():
        module.fail_json(msg=f"There is no Dockerfile in {root}.")
    files = read_context(root, params["exclude"], params["ca_bundle"])
    has_dest = bool(params["dest"])
    if has_dest and not module.check_mode:
        pack(files, params["dest"])
    digest = digest_of(files, params["build_arguments"])
    module.exit_json(changed=has_dest, digest=digest, files=len(files))


if __name__ == "__main__":
    main()
