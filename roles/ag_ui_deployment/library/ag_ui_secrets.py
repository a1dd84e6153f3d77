#!/usr/bin/python
"""Make random secrets once and keep them in files that only root reads."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_secrets
short_description: Make random secrets once and keep them
description:
  - Each secret is a file of one line. A file that is there is read and never written again.
options:
  directory:
    description: Directory of the files; made with mode 0700 if it is missing.
    type: path
    required: true
  names:
    description: Secrets to make; a value is the number of random bytes.
    type: dict
    required: true
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Make the signing key
  ag_ui_secrets:
    directory: /etc/ag-ui/secrets
    names: {jwt_secret: 48}
  no_log: true
"""

RETURN = r"""
values:
  description: The secrets by their names. In check mode a new one is the text C(generated).
  returned: success
  type: dict
"""


def keep(path: Path, count: int) -> str:
    """Write a new secret whole or not at all."""
    value = secrets.token_urlsafe(count)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return value


def main() -> None:
    """Read what is there, make what is missing."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    changed = False
    values = {}
    if not directory.is_dir():
        changed = bool(module.params["names"])
        if changed and not module.check_mode:
            directory.mkdir(mode=0o700)
    for name, count in module.params["names"].items():
        path = directory / name
        if path.exists():
            values[name] = path.read_text(encoding="ascii").strip()
            continue
        changed = True
        values[name] = "generated" if module.check_mode else keep(path, int(count))
    module.exit_json(changed=changed, values=values)


if __name__ == "__main__":
    main()
