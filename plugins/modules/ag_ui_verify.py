#!/usr/bin/python
"""Check a running site, and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_checks import (
    report_lines,
    site_checks,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
    site_status,
)

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site

DOCUMENTATION = r"""
---
module: ag_ui_verify
short_description: Check a running site
description:
  - Checks units, instances, proxy, certificate, releases, stream and disks of a host, as C(ag-ui status) does on the
    host. It changes nothing and does not fail; the caller decides by RV(checks).
options:
  site:
    description: The deployment of the host, as in /etc/ag-ui/site.json.
    type: dict
    required: true
  deploying:
    description: Whether a deployment asks about itself, so that its lock is not a finding.
    type: bool
    default: false
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Check the site
  hx_citadel.shield_ag_ui.ag_ui_verify:
    site: "{{ __ag_ui_site }}"
  register: verified
"""

RETURN = r"""
checks:
  description: Name, status (C(ok), C(warning) or C(failed)), detail and remedy of each check.
  returned: success
  type: list
  elements: dict
report:
  description: The checks as lines for operators.
  returned: success
  type: list
  elements: str
problems:
  description: Those of these lines that are about warnings and failed checks.
  returned: success
  type: list
  elements: str
failed_checks:
  description: Names of the failed checks.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Check the site."""
    module = AnsibleModule(
        argument_spec={
            "site": {"type": "dict", "required": True},
            "deploying": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    site = cast("Site", module.params["site"])
    checks = site_checks(site, site_status(site), deploying=module.params["deploying"])
    module.exit_json(
        changed=False,
        checks=checks,
        report=report_lines(checks),
        problems=report_lines([check for check in checks if check["status"] != "ok"]),
        failed_checks=[check["name"] for check in checks if check["status"] == "failed"],
    )


if __name__ == "__main__":
    main()
