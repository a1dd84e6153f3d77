#!/usr/bin/python
"""Store random secrets in files that only root can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_secrets
short_description: Read secrets from files, and write the missing ones
description:
  - Each secret is a file of one line with mode 0600. An existing file is never written again.
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
"""


def write_secret(path: Path, value: str) -> None:
    """Write a secret atomically, with mode 0600."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def main() -> None:
    """Read the existing secrets and write the missing ones."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "dict", "required": True},
            "initial": {"type": "dict", "default": {}},
            "generate": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    initial = params["initial"]
    values: dict[str, str] = {}
    changed = False
    for name, size in params["names"].items():
        path = Path(params["directory"], name)
        if path.exists():
            values[name] = path.read_text(encoding="ascii").strip()
        elif name in initial or params["generate"]:
            changed = True
            generated = "generated" if module.check_mode else secrets.token_urlsafe(int(size))
            values[name] = initial.get(name, generated)
            if not module.check_mode:
                write_secret(path, values[name])
    module.exit_json(changed=changed, values=values)


if __name__ == "__main__":
    main()
