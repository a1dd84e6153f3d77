#!/usr/bin/python
"""Read the releases of a host, and what its instances run."""

from __future__ import annotations

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_commands import (  # type: ignore[import-not-found]
    output_of,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host import (  # type: ignore[import-not-found]
    ACCOUNT_OPTIONS,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (  # type: ignore[import-not-found]
    account_gid,
    running_instances,
    running_units,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (  # type: ignore[import-not-found]
    Record,
    deployed_releases,
    linked_release,
    read_record,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_units import (  # type: ignore[import-not-found]
    UNIT,
    UnitState,
    enabled_units,
    instance_units,
)

DOCUMENTATION = r"""
---
module: ag_ui_release_info
short_description: Read the releases of a host, and what its instances run
options:
  directory:
    description: Directory that contains the directory C(releases) and the links.
    type: path
    default: /etc/ag-ui
  account:
    description: Account of the backend.
    type: dict
    required: true
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      uid:
        description: User id.
        type: int
        required: true
  services:
    description: Systemd units of which to return those that are enabled and active.
    type: list
    elements: str
    default: []
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Read the releases
  hx_citadel.shield_ag_ui.ag_ui_release_info:
    account: {name: agui, uid: 1001}
  register: releases
"""

RETURN = r"""
current:
  description: Release that all instances run; empty if there is none.
  returned: success
  type: str
previous:
  description: Release that ran before; empty if there is none.
  returned: success
  type: str
deployed:
  description: Releases that all instances have run, the most recently deployed first.
  returned: success
  type: list
  elements: str
records:
  description: Image, instances and outcome of each release, by name.
  returned: success
  type: dict
images:
  description: Names with tags of the images of the host.
  returned: success
  type: list
  elements: str
gid:
  description: Id of the group of O(account); null if there is no group of this name, or no such user with this id and group.
  returned: success
  type: int
running:
  description: Those of O(services) that are enabled and active.
  returned: success
  type: list
  elements: str
enabled:
  description: Links to the units of the role in the C(.wants) directories.
  returned: success
  type: list
  elements: str
instances:
  description: Release of each running container, by container name.
  returned: success
  type: dict
units:
  description: Release and endpoint of each unit, by name.
  returned: success
  type: dict
"""


def inferred_record(release: Path, units: dict[str, UnitState]) -> Record:
    """Infer the record of a release that a version of the role without records deployed.

    Its instances had the ports that the units have now.
    """
    environment = (release / "release.env").read_text(encoding="utf-8")
    image = re.search(r"^AG_UI_IMAGE=(.+)$", environment, re.MULTILINE)
    unit = (release / f"{UNIT}@.service").read_text(encoding="utf-8")
    address = re.search(r"http://([^\s;/:]+):%i/health/ready", unit)
    ports = [name.removesuffix(".service").partition("@")[2] for name in units]
    return {
        "release": release.name,
        "image": image[1] if image else "",
        "address": address[1] if address else "127.0.0.1",
        "ports": sorted(map(int, ports)),
        "outcome": "deployed",
    }


def main() -> None:
    """Return the state."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/ag-ui"},
            "account": {"type": "dict", "options": ACCOUNT_OPTIONS, "required": True},
            "services": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    units = instance_units()
    deployed = deployed_releases(directory)
    records = {path.name: read_record(path) for path in (directory / "releases").glob("*")}
    for name in deployed:
        records[name] = records[name] or inferred_record(directory / "releases" / name, units)
    images = output_of("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    module.exit_json(
        changed=False,
        current=linked_release(directory, "current"),
        previous=linked_release(directory, "previous"),
        deployed=deployed,
        records=records,
        images=images.splitlines(),
        gid=account_gid(module.params["account"]),
        running=running_units(module.params["services"]),
        enabled=enabled_units(),
        instances=running_instances(),
        units=units,
    )


if __name__ == "__main__":
    main()
