#!/usr/bin/python
"""Read the digest of an image from a `docker save` archive, without a container engine."""

from __future__ import annotations

import json
import re
import tarfile

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_archive_info
short_description: Read from a saved image what it is
description:
  - Runs on the controller. Reads the manifest of an archive made by C(docker save).
options:
  path:
    description: The archive.
    type: path
    required: true
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Look into the archive
  hx_citadel.shield_ag_ui.ag_ui_archive_info:
    path: backend.tar
  delegate_to: localhost
"""

RETURN = r"""
digest:
  description: SHA-256 of the image's configuration, which pins everything in it.
  returned: success
  type: str
"""


def main() -> None:
    """Read the manifest of the archive and return the digest of its only image."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            images = json.load(manifest) if manifest else []
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        module.fail_json(msg=f"{path} is no image made by `docker save`: {error}")
    if len(images) != 1:
        module.fail_json(msg=f"{path} holds {len(images)} images. Save exactly one.")
    config = re.search(r"[0-9a-f]{64}", images[0]["Config"])
    if not config:
        module.fail_json(msg=f"{path} names its image in an unknown way: {images[0]['Config']}")
    else:
        module.exit_json(changed=False, digest=config.group())


if __name__ == "__main__":
    main()
