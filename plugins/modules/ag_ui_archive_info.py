#!/usr/bin/python
"""Read the digest of an image from a `docker save` archive, without a container engine."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_archive_info
short_description: Read the digest of a saved image
description:
  - Reads the manifest of an archive made by C(docker save), without a container engine. It may be compressed.
  - Changes nothing. Run it on the controller.
options:
  path:
    description: Path of the archive, which must contain exactly one image.
    type: path
    required: true
  sha256:
    description: Expected SHA-256 of the file in hexadecimal. If it is empty, the file is not checked.
    type: str
    default: ""
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Read the digest of the archived image
  hx_citadel.shield_ag_ui.ag_ui_archive_info:
    path: backend.tar
  delegate_to: localhost
"""

RETURN = r"""
digest:
  description: SHA-256 of the image's configuration in hexadecimal; it identifies the content of the image.
  returned: success
  type: str
  sample: 9f0c0d3a4b6e1f2d5c7a8b9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c
"""


CHUNK_BYTES = 1 << 20


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def main() -> None:
    """Read the manifest of the archive and return the digest of its only image."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "sha256": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path, expected = module.params["path"], module.params["sha256"].lower()
    try:
        if expected and (found := sha256_of(path)) != expected:
            module.fail_json(
                msg=f"{path} has the SHA-256 {found} instead of {expected}: it is damaged or another file."
            )
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            images = json.load(manifest) if manifest else []
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError) as error:
        module.fail_json(msg=f"{path} is not an archive made by `docker save`: {error}")
    if len(images) != 1:
        module.fail_json(msg=f"{path} contains {len(images)} images. Save exactly one.")
    config = re.search(r"[0-9a-f]{64}", images[0]["Config"])
    if not config:
        module.fail_json(
            msg=f"{path} identifies its image in an unknown format: {images[0]['Config']}"
        )
    else:
        module.exit_json(changed=False, digest=config.group())


if __name__ == "__main__":
    main()
