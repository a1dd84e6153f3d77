#!/usr/bin/python
"""Take or release the lock of a host, so that only one run changes it at a time."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_lock_file import (
    Lock,
    read,
    take,
)

DOCUMENTATION = r"""
---
module: ag_ui_lock
short_description: Take or release the lock of a host
description:
  - The lock is a file that names who holds it. It is created atomically, so that one of two runs gets it.
  - A run that ended without releasing its lock leaves it behind. O(replaces) takes such a lock over.
options:
  path:
    description: File of the lock.
    type: path
    required: true
  run:
    description: Identifier of the run, such as the process on the controller with its start time.
    type: str
    required: true
  holder:
    description: User and controller, for the message to others.
    type: str
    default: ""
  purpose:
    description: What the run does, for the message to others.
    type: str
    default: deployment
  replaces:
    description: Identifier of a run that has ended, or C(*) for any; its lock is taken over.
    type: str
    default: ""
  state:
    description: Whether to take or to release the lock. Only the run that holds it releases it.
    type: str
    choices: [present, absent]
    default: present
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Take the lock
  hx_citadel.shield_ag_ui.ag_ui_lock:
    path: /var/lib/ag-ui/deployment.lock
    run: controller 4711 Mon Nov 30 10:00:00 2026
    holder: operator@controller
"""

RETURN = r"""
held:
  description: Whether the run holds the lock.
  returned: success
  type: bool
other:
  description: Holder, run, purpose and time of the lock of another run; empty if there is none.
  returned: success
  type: dict
"""


def main() -> None:
    """Take or release the lock."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "run": {"type": "str", "required": True},
            "holder": {"type": "str", "default": ""},
            "purpose": {"type": "str", "default": "deployment"},
            "replaces": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = Path(params["path"])
    if module.check_mode:
        module.exit_json(changed=False, held=False, other={})
    if params["state"] == "absent":
        existing = read(path)
        if existing is not None and existing.get("run") == params["run"]:
            path.unlink()
        module.exit_json(changed=False, held=False, other={})
    lock: Lock = {
        "holder": params["holder"],
        "run": params["run"],
        "purpose": params["purpose"],
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    other = take(path, lock, params["replaces"])
    # A lock is no change of the site.
    module.exit_json(changed=False, held=other is None, other=other or {})


if __name__ == "__main__":
    main()
