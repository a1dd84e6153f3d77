#!/usr/bin/python
"""Let Redis accept a new password beside the former one, and later no longer the former one."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis import Redis

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis import (
        RedisOptions,
    )

DOCUMENTATION = r"""
---
module: ag_ui_redis_password
short_description: Change a password of a Redis user without an interruption
description:
  - Users of Redis can have several passwords. This adds the new one, if Redis does not accept it and accepts the
    former one. With O(remove_previous) or O(remove_others) it removes former ones. Redis receives SHA-256 digests.
  - Connections stay open. The change is stored with ACL SAVE if Redis has a file of users.
options:
  host:
    description: Host name or address.
    type: str
    required: true
  port:
    description: TCP port.
    type: int
    required: true
  user:
    description: ACL user; if it is empty, the default user.
    type: str
    default: ""
  tls:
    description: Whether to use TLS. The certificate and its name are verified.
    type: bool
    default: false
  ca:
    description: CA certificates in PEM; if it is empty, those of the system.
    type: str
    default: ""
  password:
    description: The new password.
    type: str
    required: true
  previous_password:
    description: The former password; empty if there is none.
    type: str
    default: ""
  remove_previous:
    description: Whether to remove O(previous_password).
    type: bool
    default: false
  remove_others:
    description: Whether to remove all passwords except O(password).
    type: bool
    default: false
  returns_rules:
    description: Whether to return C(rules).
    type: bool
    default: false
  timeout:
    description: Seconds for a connection, and for each response.
    type: float
    default: 5
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Accept the new password beside the former one
  hx_citadel.shield_ag_ui.ag_ui_redis_password:
    host: 127.0.0.1
    port: 6379
    password: "{{ new }}"
    previous_password: "{{ former }}"
"""

RETURN = r"""
accepts_previous:
  description: Whether Redis accepts the former password now.
  returned: success
  type: bool
rules:
  description: The line of the user for the configuration of Redis, with digests of passwords; empty if it may not be read.
  returned: success
  type: str
stored:
  description: Whether Redis keeps the passwords over a restart by itself, in its file of users.
  returned: success
  type: bool
"""


class Options(TypedDict):
    """The options of the module."""

    host: str
    port: int
    user: str
    tls: bool
    ca: str
    password: str
    previous_password: str
    remove_previous: bool
    remove_others: bool
    returns_rules: bool
    timeout: float


class Result(TypedDict):
    """The result of the module."""

    changed: bool
    accepts_previous: bool
    rules: str
    stored: bool


def digest(password: str) -> str:
    """Return the digest by which Redis knows a password."""
    return hashlib.sha256(password.encode()).hexdigest()


class Account:
    """A user of a Redis."""

    def __init__(self, params: Options) -> None:
        """Take the options of the module."""
        self._server: RedisOptions = {
            "host": params["host"],
            "port": params["port"],
            "user": params["user"],
            "tls": params["tls"],
            "ca": params["ca"],
            "password": "",
            "db": 0,
        }
        self._timeout = params["timeout"]
        self._name = params["user"] or "default"

    def log_in(self, password: str) -> Redis:
        """Connect and log in; raise `RefusedError` if Redis refuses it."""
        client = Redis(self._server, self._timeout)
        try:
            names = [self._server["user"]] if self._server["user"] else []
            client.command("AUTH", *names, password)
        except BaseException:
            client.close()
            raise
        return client

    def accepts(self, password: str) -> bool:
        """Whether Redis accepts a password."""
        try:
            self.log_in(password).close()
        except RefusedError:
            return False
        return True

    def change(self, password: str, *rules: str) -> None:
        """Log in with this password, and change the passwords of the user."""
        with contextlib.closing(self.log_in(password)) as client:
            client.command("ACL", "SETUSER", self._name, *rules)

    def rules(self, password: str) -> str:
        """Read the line of the user; empty if it may not read it."""
        try:
            with contextlib.closing(self.log_in(password)) as client:
                lines = client.lines("ACL", "LIST")
        except RefusedError:
            return ""
        return next((line for line in lines if line.startswith(f"user {self._name} ")), "")

    def store(self, password: str) -> bool:
        """Store the users in the file of Redis; return False if it has none, or may not."""
        try:
            with contextlib.closing(self.log_in(password)) as client:
                client.command("ACL", "SAVE")
        except RefusedError:
            return False
        return True


def change(params: Options, *, check_mode: bool) -> Result:
    """Add the new password, then remove former ones if that is asked for.

    Raises:
        RefusedError: Redis refuses both passwords, or the change.
        OSError: Redis cannot be reached.
    """
    account, password, previous = Account(params), params["password"], params["previous_password"]
    changed = False
    if not account.accepts(password):
        changed = True
        if check_mode:
            account.log_in(previous).close()
            return Result(changed=True, accepts_previous=True, rules="", stored=False)
        account.change(previous, f"#{digest(password)}")
    obsolete = []
    if params["remove_previous"] and previous and account.accepts(previous):
        obsolete = [digest(previous)]
    if params["remove_others"]:
        known = [word[1:] for word in account.rules(password).split() if word.startswith("#")]
        obsolete = [one for one in known if one != digest(password)]
    if obsolete:
        changed = True
        if not check_mode:
            account.change(password, *(f"!{one}" for one in obsolete))
    return Result(
        changed=changed,
        accepts_previous=bool(previous) and account.accepts(previous),
        rules=account.rules(password) if params["returns_rules"] else "",
        stored=changed and not check_mode and account.store(password),
    )


def main() -> None:
    """Change the passwords, or fail with the reason."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "user": {"type": "str", "default": ""},
            "tls": {"type": "bool", "default": False},
            "ca": {"type": "str", "default": ""},
            "password": {"type": "str", "required": True, "no_log": True},
            "previous_password": {"type": "str", "default": "", "no_log": True},
            "remove_previous": {"type": "bool", "default": False},
            "remove_others": {"type": "bool", "default": False},
            "returns_rules": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    name = params["user"] or "default"
    try:
        result = change(params, check_mode=module.check_mode)
    except RefusedError as refusal:
        module.fail_json(
            msg=f"Redis refuses to change the passwords of its user {name} ({refusal}). If this user may not, an "
            f"administrator of Redis adds the new password: ACL SETUSER {name} '>NEW', then run the playbook again; "
            f"when it has ended, ACL SETUSER {name} '<FORMER'."
        )
    except OSError as error:
        module.fail_json(
            msg=f"Redis at {params['host']}:{params['port']} cannot be reached ({error}). Correct the variables, or "
            f"start it, and run the playbook again."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
