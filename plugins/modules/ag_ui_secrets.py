#!/usr/bin/python
"""Store random secrets in files that only root can read."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_rotation import (
    read_state,
    write_secret,
    write_state,
)

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_rotation import (
        Record,
    )

DOCUMENTATION = r"""
---
module: ag_ui_secrets
short_description: Read secrets from files, and write the missing ones
description:
  - Each secret is a file of one line with mode 0600. An existing file is written again only if O(rotation) has another
    value of the secret.
options:
  directory:
    description: Directory of the files. It is created with mode 0700 when the first secret is written.
    type: path
    required: true
  names:
    description: Names of the secrets, each with the number of random bytes of a generated value.
    type: dict
    required: true
  initial:
    description: Values, by name, for secrets whose file is missing.
    type: dict
    default: {}
  generate:
    description: Whether to generate secrets whose file is missing and that O(initial) does not contain.
    type: bool
    default: false
  rotation:
    description: >-
      States of the rotations of secrets, by name, as the module M(hx_citadel.shield_ag_ui.ag_ui_rotation) returns them.
      They are stored, and their values are those of the files. If it is omitted, the stored states stay as they are.
    type: dict
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Generate the signing key
  hx_citadel.shield_ag_ui.ag_ui_secrets:
    directory: /etc/ag-ui/secrets
    names: {jwt_secret: 48}
    generate: true
  no_log: true
"""

RETURN = r"""
values:
  description: Values of the existing secrets by name. In check mode the value of one to be generated is C(generated).
  returned: success
  type: dict
rotation:
  description: The stored states of rotations, by the name of the secret.
  returned: success
  type: dict
accepted:
  description: Values that are accepted in addition to the current one, by the name of the secret.
  returned: success
  type: dict
"""


class Secrets:
    """The secrets in a directory."""

    def __init__(self, directory: Path, *, check_mode: bool) -> None:
        """Read the states of the rotations."""
        self._directory = directory
        self._check_mode = check_mode
        self.rotation: dict[str, Record] = read_state(directory)
        self.changed = False

    def store_rotation(self, rotation: dict[str, Record]) -> None:
        """Store the states. They are stored first: the files of the secrets follow from them."""
        if rotation == self.rotation:
            return
        self.rotation = rotation
        self.changed = True
        if not self._check_mode:
            write_state(self._directory, rotation)

    def read(self, name: str) -> str | None:
        """Read the current value; None if there is none."""
        path = self._directory / name
        return path.read_text(encoding="ascii").strip() if path.exists() else None

    def store(self, name: str, value: str) -> None:
        """Write the current value if it is another one."""
        if self.read(name) == value:
            return
        self.changed = True
        if not self._check_mode:
            write_secret(self._directory / name, value)


def main() -> None:
    """Read the existing secrets and write the missing ones."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "dict", "required": True},
            "initial": {"type": "dict", "default": {}},
            "generate": {"type": "bool", "default": False},
            "rotation": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    params = module.params
    stored = Secrets(Path(params["directory"]), check_mode=module.check_mode)
    if params["rotation"] is not None:
        stored.store_rotation(params["rotation"])
        for name in params["rotation"].keys() & params["names"].keys():
            stored.store(name, params["rotation"][name]["value"])
    values: dict[str, str] = {}
    for name, size in params["names"].items():
        value = stored.read(name)
        if value is None and (name in params["initial"] or params["generate"]):
            generated = "generated" if module.check_mode else secrets.token_urlsafe(int(size))
            value = params["initial"].get(name, generated)
            stored.store(name, value)
        if value is not None:
            values[name] = value
    records = {name: stored.rotation[name] for name in params["names"] if name in stored.rotation}
    module.exit_json(
        changed=stored.changed,
        values=values | {name: record["value"] for name, record in records.items()},
        rotation=stored.rotation,
        accepted={
            name: [one["value"] for one in record["accepted"]] for name, record in records.items()
        },
    )


if __name__ == "__main__":
    main()
