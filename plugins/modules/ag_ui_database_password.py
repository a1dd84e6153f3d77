#!/usr/bin/python
"""Change the password of a PostgreSQL role that knows its former one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_datastores import (
    accepts,
    database_primary,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_postgresql import log_in
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_scram import (
    UnverifiedServerError,
    verifier,
)

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_postgresql import (
        DatabaseOptions,
        LoginOptions,
    )

DOCUMENTATION = r"""
---
module: ag_ui_database_password
short_description: Change the password of a PostgreSQL role
description:
  - Logs in with the new password. If PostgreSQL refuses it, logs in with the former one, and sets the new one as the
    role itself, which every role may do. PostgreSQL receives a SCRAM-SHA-256 verifier and not the password.
options:
  host:
    description: Host name or address.
    type: str
    required: true
  port:
    description: TCP port.
    type: int
    required: true
  standbys:
    description: Further servers, of which one may be the primary now, as C(host:port).
    type: list
    elements: str
    default: []
  sslmode:
    description: TLS mode, as in libpq.
    type: str
    default: prefer
  ca:
    description: CA certificates in PEM; if it is empty, those of the system.
    type: str
    default: ""
  name:
    description: Name of the database.
    type: str
    required: true
  user:
    description: The role.
    type: str
    required: true
  password:
    description: The new password.
    type: str
    required: true
  previous_password:
    description: The former password.
    type: str
    required: true
  timeout:
    description: Seconds for a connection, and for each response.
    type: float
    default: 10
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Change the password of the application's role
  hx_citadel.shield_ag_ui.ag_ui_database_password:
    host: hx-sqldb-server
    port: 5432
    name: shield
    user: shield
    password: "{{ new }}"
    previous_password: "{{ former }}"
"""

RETURN = r"""
# Only the values of all modules.
"""


class Options(TypedDict):
    """The options of the module."""

    host: str
    port: int
    standbys: list[str]
    sslmode: str
    ca: str
    name: str
    user: str
    password: str
    previous_password: str
    timeout: float


def change(params: Options, *, check_mode: bool) -> bool:
    """Set the new password, unless it is set; return whether it was another one.

    Raises:
        RefusedError: PostgreSQL refuses both passwords, or the change.
        UnverifiedServerError: The server has not proved that it knows the password.
        OSError: The server cannot be reached.
    """
    server: DatabaseOptions = {
        "host": params["host"],
        "port": params["port"],
        "standbys": params["standbys"],
        "name": params["name"],
        "sslmode": params["sslmode"],
        "ca": params["ca"],
        "logins": [],
    }
    new: LoginOptions = {
        "variables": "",
        "user": params["user"],
        "password": params["password"],
        "previous_password": "",
    }
    former: LoginOptions = {**new, "password": params["previous_password"]}
    either: LoginOptions = {**new, "previous_password": params["previous_password"]}
    server = database_primary(server, either, params["timeout"])
    if accepts(server, new, params["timeout"]):
        return False
    with contextlib.closing(log_in(server, former, params["timeout"])) as client:
        if not check_mode:
            client.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{verifier(params['password'])}'")
    if not check_mode:
        log_in(server, new, params["timeout"]).close()
    return True


def main() -> None:
    """Change the password, or fail with the reason."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "standbys": {"type": "list", "elements": "str", "default": []},
            "sslmode": {"type": "str", "default": "prefer"},
            "ca": {"type": "str", "default": ""},
            "name": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "previous_password": {"type": "str", "required": True, "no_log": True},
            "timeout": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    try:
        changed = change(params, check_mode=module.check_mode)
    except (RefusedError, UnverifiedServerError, OSError) as error:
        module.fail_json(
            msg=f"The password of the PostgreSQL role {params['user']} could not be changed ({error}). PostgreSQL must "
            f"accept the new or the former password of this role; correct the variables, and run the playbook again."
        )
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
