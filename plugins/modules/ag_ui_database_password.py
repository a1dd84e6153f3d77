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
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_postgresql import (
    DATABASE_SPEC,
    log_in,
)
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
  database:
    description:
      - The servers, as of M(hx_citadel.shield_ag_ui.ag_ui_preflight). C(logins) has one element, with the new password and
        the former one as C(previous_password).
    type: dict
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
    database:
      host: hx-sqldb-server
      port: 5432
      name: shield
      logins: [{variables: ag_ui_database_password, user: shield, password: "{{ new }}", previous_password: "{{ former }}"}]
"""

RETURN = r"""
# Only the values of all modules.
"""


class Options(TypedDict):
    """The options of the module."""

    database: DatabaseOptions
    timeout: float


def change(params: Options, *, check_mode: bool) -> bool:
    """Set the new password, unless it is set; return whether it was another one.

    Raises:
        RefusedError: PostgreSQL refuses both passwords, or the change.
        UnverifiedServerError: The server has not proved that it knows the password.
        OSError: The server cannot be reached.
    """
    timeout = params["timeout"]
    [login] = params["database"]["logins"]
    new: LoginOptions = {**login, "previous_password": ""}
    former: LoginOptions = {**new, "password": login["previous_password"]}
    server = database_primary(params["database"], login, timeout)
    if accepts(server, new, timeout):
        return False
    with contextlib.closing(log_in(server, former, timeout)) as client:
        if not check_mode:
            client.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{verifier(login['password'])}'")
    if not check_mode:
        log_in(server, new, timeout).close()
    return True


def main() -> None:
    """Change the password, or fail with the reason."""
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "dict", "options": DATABASE_SPEC, "required": True},
            "timeout": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    try:
        changed = change(params, check_mode=module.check_mode)
    except (RefusedError, UnverifiedServerError, OSError) as error:
        module.fail_json(
            msg=f"The password of the PostgreSQL role {params['database']['logins'][0]['user']} could not be changed ({error}). PostgreSQL must "
            f"accept the new or the former password of this role; correct the variables, and run the playbook again."
        )
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
