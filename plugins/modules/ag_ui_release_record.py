#!/usr/bin/python
"""Record the outcome of a deployment in the directory of its release."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (  # type: ignore[import-not-found]
    Record,
    linked_release,
    read_record,
    record_deployment,
    utc_now,
    write_record,
)

DOCUMENTATION = r"""
---
module: ag_ui_release_record
short_description: Record the outcome of a deployment in the directory of its release
description:
  - Writes C(record.json) into the directory of the release. If it was deployed, points the links C(current) and
    C(previous) at this and the former release.
options:
  directory:
    description: Directory that contains the directory C(releases) and the links.
    type: path
    required: true
  release:
    description: Name of the release.
    type: str
    required: true
  outcome:
    description: Whether all instances run the release.
    type: str
    choices: [deployed, failed]
    default: deployed
  reason:
    description: Why it failed.
    type: str
    default: ""
  rolls_back:
    description: Whether this release replaces the current one because of a rollback, which the record of that one then says.
    type: bool
    default: false
  image:
    description: Image of the release.
    type: str
    default: ""
  address:
    description: Address that the instances listen on.
    type: str
    default: ""
  ports:
    description: Ports that the instances listen on.
    type: list
    elements: int
    default: []
  by:
    description: User and host that deployed it.
    type: str
    default: ""
  started:
    description: When the deployment began, in ISO 8601.
    type: str
    default: ""
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Record the release
  hx_citadel.shield_ag_ui.ag_ui_release_record:
    directory: /etc/ag-ui
    release: 0123456789abcdef
    by: operator@controller
"""

RETURN = r"""#"""


def main() -> None:
    """Write the record."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "outcome": {"type": "str", "choices": ["deployed", "failed"], "default": "deployed"},
            "reason": {"type": "str", "default": ""},
            "rolls_back": {"type": "bool", "default": False},
            "image": {"type": "str", "default": ""},
            "address": {"type": "str", "default": ""},
            "ports": {"type": "list", "elements": "int", "default": []},
            "by": {"type": "str", "default": ""},
            "started": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    directory = Path(params["directory"])
    release = directory / "releases" / params["release"]
    former = linked_release(directory, "current")
    if module.check_mode or not release.is_dir():
        module.exit_json(changed=former != params["release"])
    record: Record = {
        "release": params["release"],
        "image": params["image"],
        "address": params["address"],
        "ports": params["ports"],
        "by": params["by"],
        "started": params["started"],
    }
    if params["outcome"] == "failed":
        ended = {"finished": utc_now(), "outcome": "failed", "reason": params["reason"]}
        write_record(release, {**record, **ended})
        module.exit_json(changed=True)
    changed = record_deployment(directory, record)
    former_release = directory / "releases" / former
    if changed and params["rolls_back"] and former and former_release.is_dir():
        write_record(former_release, {**read_record(former_release), "outcome": "rolled_back"})
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
