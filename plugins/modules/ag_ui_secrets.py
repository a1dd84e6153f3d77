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
short_description: Read secrets, and write those that are missing
description:
  - Each secret is a file of one line. A file that is there is read and never written again.
options:
  directory:
    description: Directory of the files; made with mode 0700 if there is something to write.
    type: path
    required: true
  names:
    description: Secrets to have; a value is the number of random bytes.
    type: dict
    required: true
  given:
    description: Values for those that are missing.
    type: dict
    default: {}
  generate:
    description: Whether those that are missing and not given are made.
    type: bool
    default: false
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Make the signing key
  hx_citadel.shield_ag_ui.ag_ui_secrets:
    directory: /etc/ag-ui/secrets
    names: {jwt_secret: 48}
    generate: true
  no_log: true
"""

RETURN = r"""
values:
  description: The secrets that there are by their names. In check mode a new one is the text C(generated).
  returned: success
  type: dict
"""


def keep(path: Path, value: str) -> None:
    """Write a secret atomically, with mode 0600."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def main() -> None:
    """Read the existing secrets and write the missing ones."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "dict", "required": True},
            "given": {"type": "dict", "default": {}},
            "generate": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    values: dict[str, str] = {}
    changed = False
    for name, count in wanted["names"].items():
        path = Path(wanted["directory"], name)
        if path.exists():
            values[name] = path.read_text(encoding="ascii").strip()
        elif name in wanted["given"] or wanted["generate"]:
            changed = True
            fresh = "generated" if module.check_mode else secrets.token_urlsafe(int(count))
            values[name] = wanted["given"].get(name, fresh)
            if not module.check_mode:
                keep(path, values[name])
    module.exit_json(changed=changed, values=values)


if __name__ == "__main__":
    main()
