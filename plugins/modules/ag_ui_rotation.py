#!/usr/bin/python
"""Take one step in the rotation of generated secrets."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_rotation import (
    begin,
    confirm,
    finish,
    use,
    write_state,
)

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_rotation import (
        Record,
    )

DOCUMENTATION = r"""
---
module: ag_ui_rotation
short_description: Take one step in the rotation of generated secrets
description:
  - Stores the states of the rotations beside the secrets, on one host of a group. The module
    M(hx_citadel.shield_ag_ui.ag_ui_secrets) stores them on the others. The secrets themselves are not written here.
  - A step that was already taken changes nothing, so that an interrupted rotation continues if all steps are repeated.
options:
  directory:
    description: Directory of the secrets.
    type: path
    required: true
  step:
    description: >-
      V(begin) generates new values, which the instances then accept. V(use) uses them, when all instances accept them.
      V(confirm) sets until when former values are accepted, when all instances use the new ones. V(finish) removes
      those whose time has passed.
    type: str
    choices: [begin, use, confirm, finish]
    required: true
  secrets:
    description: >-
      Secrets by name, each with C(bytes), the number of random bytes of a generated value, and C(lifetime), the seconds
      for which a former value is accepted.
    type: dict
    required: true
  rotation:
    description: States of the rotations of the group, by the name of the secret.
    type: dict
    required: true
  values:
    description: Values that are in use, by name. Required for V(begin).
    type: dict
    default: {}
  again:
    description: Whether to begin another rotation although the former value is still accepted.
    type: bool
    default: false
  early:
    description: Whether V(finish) removes former values before their time.
    type: bool
    default: false
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Begin the rotation of the signing key
  hx_citadel.shield_ag_ui.ag_ui_rotation:
    directory: /etc/ag-ui/secrets
    step: begin
    secrets: {jwt_secret: {bytes: 48, lifetime: 1800}}
    rotation: {}
    values: {jwt_secret: "{{ current }}"}
  no_log: true
"""

RETURN = r"""
rotation:
  description: The new states, by the name of the secret.
  returned: success
  type: dict
stepped:
  description: Names of the secrets whose state has changed.
  returned: success
  type: list
  elements: str
now:
  description: The time of the step in seconds since 1970.
  returned: success
  type: int
"""


class SecretOptions(TypedDict):
    """An element of the option `secrets`."""

    bytes: int
    lifetime: int


class Options(TypedDict):
    """The options of the module."""

    directory: str
    step: str
    secrets: dict[str, SecretOptions]
    rotation: dict[str, Record]
    values: dict[str, str]
    again: bool
    early: bool


def next_record(params: Options, name: str, now: int) -> Record | None:
    """Return the state of a secret after the step; None if it was never rotated."""
    record, options = params["rotation"].get(name), params["secrets"][name]
    if params["step"] == "begin":
        new = secrets.token_urlsafe(int(options["bytes"]))
        return begin(record, params["values"][name], new, now, again=params["again"])
    if record is None:
        return None
    if params["step"] == "use":
        return use(record)
    if params["step"] == "confirm":
        return confirm(record, now + int(options["lifetime"]))
    return finish(record, now, early=params["early"])


def main() -> None:
    """Take the step for all secrets, and store the states if one has changed."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "step": {
                "type": "str",
                "choices": ["begin", "use", "confirm", "finish"],
                "required": True,
            },
            "secrets": {"type": "dict", "required": True, "no_log": False},
            "rotation": {"type": "dict", "required": True},
            "values": {"type": "dict", "default": {}},
            "again": {"type": "bool", "default": False},
            "early": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    now = int(time.time())
    state = dict(params["rotation"])
    for name in params["secrets"]:
        record = next_record(params, name, now)
        if record is not None:
            state[name] = record
    stepped = [name for name in state if state[name] != params["rotation"].get(name)]
    if stepped and not module.check_mode:
        write_state(Path(params["directory"]), state)
    module.exit_json(changed=bool(stepped), rotation=state, stepped=stepped, now=now)


if __name__ == "__main__":
    main()
