#!/usr/bin/python
"""Check the files of a site's frontend, compute their version, and pack them."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_frontend_files import (  # type: ignore[import-not-found]
    FrontendError,
    pack,
    read_frontend,
    version_of,
)

DOCUMENTATION = r"""
---
module: ag_ui_frontend_source
short_description: Check the files of a frontend, compute their version, and pack them
description:
  - Fails if the frontend has no C(index.html), is too large, or has paths or links that lead out of it.
  - Files and directories whose names begin with a dot are left out, except C(.well-known).
  - Run it on the controller.
options:
  path:
    description: Directory, or archive (.tar.gz or .zip), with the files of the frontend.
    type: path
    required: true
  reserved:
    description: First segments of paths that are not served by the frontend. Files below them cause a warning.
    type: list
    elements: str
    default: []
  dest:
    description: Archive (tar.gz) to write. If it is omitted, nothing is written.
    type: path
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Check the frontend
  hx_citadel.shield_ag_ui.ag_ui_frontend_source:
    path: frontend/dist
    reserved: [api, auth]
  delegate_to: localhost
"""

RETURN = r"""
version:
  description: Digest of the names and contents of the files, 16 hexadecimal digits.
  returned: success
  type: str
  sample: 9f0c0d3a4b6e1f2d
files:
  description: Number of files.
  returned: success
  type: int
"""


def main() -> None:
    """Read the frontend, and write the archive if `dest` is set."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "reserved": {"type": "list", "elements": "str", "default": []},
            "dest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        files = read_frontend(Path(params["path"]))
    except FrontendError as error:
        module.fail_json(msg=str(error))
    else:
        hidden = [name for name in files if name.partition("/")[0] in params["reserved"]]
        if hidden:
            module.warn(
                f"The frontend has {hidden[0]}, which nobody can load: /{hidden[0].partition('/')[0]} belongs to the backend."
            )
        if params["dest"] and not module.check_mode:
            pack(files, Path(params["dest"]))
        module.exit_json(changed=False, version=version_of(files), files=len(files))


if __name__ == "__main__":
    main()
