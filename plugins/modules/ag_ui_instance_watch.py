#!/usr/bin/python
"""Watch instances that are healthy, and fail if one of them does not keep running."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_instance_control import (  # type: ignore[import-not-found]
    InstanceControl,
    watch,
)

DOCUMENTATION = r"""
---
module: ag_ui_instance_watch
short_description: Watch instances that are healthy, and fail if one of them does not keep running
description:
  - Fails as soon as an instance is no longer the process that it was, and at the end if one is not healthy. It
    changes nothing.
options:
  instances:
    description: The instances, as M(hx_citadel.shield_ag_ui.ag_ui_instance) returned them.
    type: list
    elements: dict
    required: true
    suboptions:
      unit:
        description: Name of the unit.
        type: str
        required: true
      start_id:
        description: Identifier of the start of the unit.
        type: str
        required: true
      started_at:
        description: When it was started, as Unix time; older log entries belong to another release.
        type: float
        required: true
  seconds:
    description: How long the instances must keep running.
    type: float
    required: true
  directory:
    description: Directory of the permanent units.
    type: path
    default: /etc/systemd/system
  trial_directory:
    description: Directory of the units under trial.
    type: path
    default: /run/systemd/system.control
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Watch an instance for a minute
  hx_citadel.shield_ag_ui.ag_ui_instance_watch:
    instances: [{unit: ag-ui-backend@8002.service, start_id: "{{ trial.start_id }}", started_at: "{{ trial.started_at }}"}]
    seconds: 60
"""

RETURN = r"""#"""


class StartedInstance(TypedDict):
    """An element of the option `instances`."""

    unit: str
    start_id: str
    started_at: float


def main() -> None:
    """Watch the instances."""
    module = AnsibleModule(
        argument_spec={
            "instances": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "unit": {"type": "str", "required": True},
                    "start_id": {"type": "str", "required": True},
                    "started_at": {"type": "float", "required": True},
                },
            },
            "seconds": {"type": "float", "required": True},
            "directory": {"type": "path", "default": "/etc/systemd/system"},
            "trial_directory": {"type": "path", "default": "/run/systemd/system.control"},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False)
    started: list[StartedInstance] = module.params["instances"]
    directories = Path(module.params["directory"]), Path(module.params["trial_directory"])
    controls = {}
    for instance in started:
        control = InstanceControl(instance["unit"], *directories)
        control.instance.started_at = instance["started_at"]
        controls[control] = instance["start_id"]
    failure = watch(controls, module.params["seconds"])
    if failure:
        module.fail_json(msg=failure)
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
