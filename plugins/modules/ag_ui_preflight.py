#!/usr/bin/python
"""Check on the target, before anything is changed, whether a deployment can succeed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_datastores import (
    database_problems,
    redis_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_gateway import (
    gateway_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host import (
    account_problems,
    engine_problems,
    proxy_problems,
    systemd_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (
    host_state,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_ports import (
    port_problems,
)

DOCUMENTATION = r"""
---
module: ag_ui_preflight
short_description: Ask the target whether a deployment can succeed, and what is there
description:
  - Changes nothing. Looks at names, ports, the account, Redis and PostgreSQL, and reports every
    problem at once, each with the variable that is wrong and the remedy.
  - Returns all that the rest of the role wants to know of the target, so that a run that finds
    nothing to do has asked only once.
options:
  redis:
    description: >-
      Redis to log in to (host, port, user, password, db, whether by TLS, and the certificates of the authorities
      as PEM); none to leave it out.
    type: dict
  database:
    description: >-
      PostgreSQL to log in to (host, port, name, libpq's sslmode, the certificates of the authorities as PEM, and
      for each of the logins its variables, the user and the password); none to leave it out.
    type: dict
  ports:
    description: Ports to be free or ours (variable, address, port, unit or process).
    type: list
    elements: dict
    default: []
  proxy:
    description: >-
      Configuration of nginx (main, the files of the role in it, and the packaged sites that the role removes unless
      they were changed), and the ports that the role's site is the
      default server of (each with its variable).
    type: dict
  gateway:
    description: Address of the LiteLLM gateway; none to leave it out. One that does not answer is no problem.
    type: str
    default: ""
  account:
    description: Account to be free or ours (name, uid).
    type: dict
    required: true
  packages:
    description: Packages to look for.
    type: list
    elements: str
    default: []
  certificate:
    description: Certificate to look at.
    type: path
    required: true
  configuration:
    description: Directory with the releases.
    type: path
    default: /etc/ag-ui
  timeout:
    description: Seconds that a server may take to accept a connection, and for each answer.
    type: float
    default: 5
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Ask before changing anything
  hx_citadel.shield_ag_ui.ag_ui_preflight:
    account: {name: agui, uid: 1001}
    certificate: /etc/ag-ui/tls/server.crt
    configuration: /etc/ag-ui
    ports: [{variable: ag_ui_https_port, address: 0.0.0.0, port: 443, process: nginx}]
"""

RETURN = r"""
ipv6:
  description: Whether the target can listen on IPv6.
  returned: success
  type: bool
engine:
  description: Whether a Docker engine is installed, from whatever source.
  returned: success
  type: bool
missing:
  description: Those of the packages that are not installed.
  returned: success
  type: list
nginx:
  description: Version of nginx, empty if it is not installed.
  returned: success
  type: str
certificate:
  description: Names and addresses of the certificate; none if it is not there or ends within 30 days.
  returned: success
  type: list
enabled:
  description: Links by which systemd starts our units, relative to /etc/systemd/system.
  returned: success
  type: list
images:
  description: Images of the engine, as name and tag.
  returned: success
  type: list
instances:
  description: Running containers of instances, with the release they were started from.
  returned: success
  type: dict
units:
  description: >-
    Units of instances, enabled or not, with the release that each starts (empty for one that was tried and not kept)
    and where it listens.
  returned: success
  type: dict
releases:
  description: Releases that are written on the host.
  returned: success
  type: list
current:
  description: The release that all instances ran at the end of the last deployment; empty if there is none.
  returned: success
  type: str
"""

PASSWORD = {"type": "str", "default": "", "no_log": True}
REDIS = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "user": {"type": "str", "default": ""},
    "tls": {"type": "bool", "default": False},
    "ca": {"type": "str", "default": ""},
    "password": PASSWORD,
    "db": {"type": "int", "required": True},
}
LOGIN = {
    "variables": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "password": PASSWORD,
}
DATABASE = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "sslmode": {"type": "str", "default": "prefer"},
    "ca": {"type": "str", "default": ""},
    "name": {"type": "str", "required": True},
    "logins": {"type": "list", "elements": "dict", "options": LOGIN, "required": True},
}


def problems_of(wanted: dict[str, Any]) -> list[str]:
    """Do all checks.

    Args:
        wanted: The arguments of the module.

    Returns:
        A message for each problem, with the variable that is wrong and the remedy.
    """
    problems = systemd_problems() + account_problems(wanted["account"])
    for port in wanted["ports"]:
        problems += port_problems(port)
    problems += engine_problems()
    if wanted["gateway"]:
        problems += gateway_problems(wanted["gateway"], wanted["timeout"])
    if wanted["proxy"]:
        problems += proxy_problems(wanted["proxy"])
    if wanted["redis"]:
        problems += redis_problems(wanted["redis"], wanted["timeout"])
    if wanted["database"]:
        problems += database_problems(wanted["database"], wanted["timeout"])
    return problems


def main() -> None:
    """Collect all problems and fail with all of them, or return the state of the target."""
    module = AnsibleModule(
        argument_spec={
            "redis": {"type": "dict", "options": REDIS},
            "database": {"type": "dict", "options": DATABASE},
            "ports": {"type": "list", "elements": "dict", "default": []},
            "proxy": {"type": "dict"},
            "gateway": {"type": "str", "default": ""},
            "account": {"type": "dict", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "certificate": {"type": "path", "required": True},
            "configuration": {"type": "path", "default": "/etc/ag-ui"},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    problems = problems_of(wanted)
    if problems:
        module.fail_json(
            msg="Nothing was changed on this host. To be put right first:\n"
            + "\n".join(f"- {problem}" for problem in problems),
            problems=problems,
        )
    found = host_state(wanted["packages"], wanted["certificate"], Path(wanted["configuration"]))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
