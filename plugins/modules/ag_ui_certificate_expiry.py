#!/usr/bin/python
"""Find out when the certificate that a TLS server presents expires, and warn in time."""

from __future__ import annotations

import time

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_certificates import (  # type: ignore[import-not-found]
    served,
)

DOCUMENTATION = r"""
---
module: ag_ui_certificate_expiry
short_description: Find out when the certificate of a TLS server expires
description:
  - Connects to the server, and reads the certificate that it presents. This is the one that clients get, also if a
    newer one is on the disk.
  - Warns if it expires soon. Changes nothing.
options:
  host:
    description: Address of the server.
    type: str
    default: 127.0.0.1
  port:
    description: TCP port of the server.
    type: int
    required: true
  days:
    description: Warn if it expires within this number of days.
    type: int
    default: 14
  remedy:
    description: What to do about it, for the warning.
    type: str
    default: ""
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Check when the certificate expires
  hx_citadel.shield_ag_ui.ag_ui_certificate_expiry:
    port: 443
"""

RETURN = r"""
expires:
  description: When the certificate expires, as Unix time.
  returned: success
  type: int
days:
  description: Full days until then; negative if it has expired.
  returned: success
  type: int
warning:
  description: The warning; empty if it does not expire soon.
  returned: success
  type: str
"""

DAY = 24 * 3600


def main() -> None:
    """Read the certificate, and warn if it expires soon."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "required": True},
            "days": {"type": "int", "default": 14},
            "remedy": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    address = f"{params['host']}:{params['port']}"
    try:
        certificate = served(params["host"], params["port"])
    except OSError as error:
        module.fail_json(msg=f"There is no TLS connection to {address}: {error}")
    if certificate is None:
        module.fail_json(msg=f"{address} presents no certificate that openssl can read.")
    days = int((certificate.expires - time.time()) // DAY)
    warning = ""
    if days < params["days"]:
        verb = "expires" if days >= 0 else "expired"
        date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(certificate.expires))
        warning = f"The certificate of {address} {verb} on {date}, {days} days from now. {params['remedy']}".strip()
        module.warn(warning)
    module.exit_json(changed=False, expires=certificate.expires, days=days, warning=warning)


if __name__ == "__main__":
    main()
