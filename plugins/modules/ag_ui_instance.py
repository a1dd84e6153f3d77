#!/usr/bin/python
"""Switch one instance to a release on trial, make it permanent, or go back."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_instance_control import (  # type: ignore[import-not-found]
    InstanceControl,
)

DOCUMENTATION = r"""
---
module: ag_ui_instance
short_description: Switch one instance to a release on trial, make it permanent, or go back
description:
  - With O(state=trial), writes the unit of the release to O(trial_directory), which overrides O(directory) and is
    emptied by a reboot, and restarts the instance. A reboot during the trial therefore starts the last permanent
    release, and so does a failure, for which systemd starts C(ag-ui-recover@PORT.service). If the instance does not
    become ready and healthy, the module goes back and fails with the reason.
  - With O(state=committed), writes the unit of the release to O(directory) and ends the trial. The instance keeps
    running.
  - With O(state=rolled_back), ends the trial. It restarts the instance with the unit in O(directory), or stops it if
    there is none.
options:
  unit:
    description: Name of the unit of the instance, such as C(ag-ui-backend@8002.service).
    type: str
    required: true
  state:
    description: What to do.
    type: str
    choices: [trial, committed, rolled_back]
    required: true
  source:
    description: Unit file of the release; required with O(state=trial) and O(state=committed).
    type: path
  healthy_within:
    description: Seconds within which a ready instance must report healthy.
    type: int
    default: 30
  directory:
    description: Directory of the permanent units.
    type: path
    default: /etc/systemd/system
  trial_directory:
    description: Directory of the unit under trial. It must override O(directory), and a reboot must empty it.
    type: path
    default: /run/systemd/system.control
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Start an instance on trial
  hx_citadel.shield_ag_ui.ag_ui_instance:
    unit: ag-ui-backend@8002.service
    source: /etc/ag-ui/releases/0123456789abcdef/ag-ui-backend@.service
    state: trial
"""

RETURN = r"""
start_id:
  description: Identifier of this start of the unit, which M(hx_citadel.shield_ag_ui.ag_ui_instance_watch) compares.
  returned: success with O(state=trial)
  type: str
started_at:
  description: When the trial began, as Unix time.
  returned: success with O(state=trial)
  type: float
result:
  description: What the instance runs now; empty if there was no trial and nothing is wrong.
  returned: with O(state=rolled_back)
  type: str
reason:
  description: Why the instance did not become ready or healthy, from the response of its own health check.
  returned: failure
  type: str
last_error:
  description: The last error in the log of the instance, or the last lines of a crash; empty if there is none.
  returned: failure
  type: str
"""


class Options(TypedDict):
    """The options of the module."""

    unit: str
    state: str
    source: str | None
    healthy_within: int
    directory: str
    trial_directory: str


def start_trial(
    module: AnsibleModule, control: InstanceControl, text: str, healthy_within: int
) -> None:
    """Start the instance on trial; go back and fail if it is not healthy."""
    reason = control.start_trial(text, healthy_within)
    if not reason:
        module.exit_json(
            changed=True,
            start_id=control.instance.invocation(),
            started_at=control.instance.started_at,
        )
    last_error = control.instance.last_error()
    module.fail_json(
        msg=f"{control.unit} did not become healthy: {reason}\n"
        f"Its last error: {last_error or 'it logged none'}\n{control.roll_back() or control.describe()}",
        reason=reason,
        last_error=last_error,
    )


def main() -> None:
    """Do what the option `state` says."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["trial", "committed", "rolled_back"],
                "required": True,
            },
            "source": {"type": "path"},
            "healthy_within": {"type": "int", "default": 30},
            "directory": {"type": "path", "default": "/etc/systemd/system"},
            "trial_directory": {"type": "path", "default": "/run/systemd/system.control"},
        },
        required_if=[("state", "trial", ["source"]), ("state", "committed", ["source"])],
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    params: Options = module.params
    control = InstanceControl(
        params["unit"], Path(params["directory"]), Path(params["trial_directory"])
    )
    if params["source"] and params["state"] != "rolled_back":
        text = Path(params["source"]).read_text(encoding="utf-8")
        if params["state"] == "trial":
            start_trial(module, control, text, params["healthy_within"])
        module.exit_json(changed=control.commit(text))
    result = control.roll_back()
    module.exit_json(changed=bool(result), result=result)


if __name__ == "__main__":
    main()
