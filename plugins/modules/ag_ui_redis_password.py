#!/usr/bin/python
"""Let Redis accept a new password beside the former one, and later no longer the former one."""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING, TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_datastores import (
    SentinelError,
    format_endpoint,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis import (
    REDIS_SPEC,
    Redis,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis_servers import (
    DEFAULT_USER,
    persist,
    replicas_of,
    replicate_with,
    sentinel_users,
    servers_of_sentinels,
    tell_sentinels,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

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
  - If there is a former one, replicas get the same, since users are not replicated. Servers that replicate as this user
    (C(masterauth)) and Sentinels that log in as this user (C(auth-pass)) use the new password from then on.
  - Connections stay open. The change is stored with ACL SAVE if Redis has a file of users, and with CONFIG REWRITE if
    there are Sentinels.
options:
  redis:
    description:
      - The server or its Sentinels, and the login with the new password, as of M(hx_citadel.shield_ag_ui.ag_ui_preflight).
    type: dict
    required: true
  previous_password:
    description: The former password; empty if there is none.
    type: str
    default: ""
  remove_previous:
    description: Whether to remove O(previous_password). Fails while a server of RV(unchanged) may need it.
    type: bool
    default: false
  remove_others:
    description: Whether to remove all passwords of the primary except the new one.
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
    redis:
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
unchanged:
  description: Replicas that could not be changed, and servers whose replication could not, with the reason.
  returned: success
  type: list
  elements: str
rules:
  description: The line of the user for the configuration of Redis, with digests of passwords; empty if it may not be read.
  returned: success
  type: str
stored:
  description: Whether all servers keep the passwords over a restart by themselves.
  returned: success
  type: bool
"""


class Options(TypedDict):
    """The options of the module."""

    redis: RedisOptions
    previous_password: str
    remove_previous: bool
    remove_others: bool
    returns_rules: bool
    timeout: float


POLL_SECONDS = 0.2


class Result(TypedDict):
    """The result of the module."""

    changed: bool
    accepts_previous: bool
    unchanged: list[str]
    rules: str
    stored: bool


class UnchangedServersError(Exception):
    """Servers would lose their login at Redis with the former password."""


def digest(password: str) -> str:
    """Return the digest by which Redis knows a password."""
    return hashlib.sha256(password.encode()).hexdigest()


class Account:
    """A user of one server."""

    def __init__(self, server: RedisOptions, timeout: float) -> None:
        """Take the address of the server, and the user."""
        self._server = server
        self._timeout = timeout
        self._name = server["user"] or DEFAULT_USER
        self.endpoint = format_endpoint(server["host"], server["port"])

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

    def add(self, password: str, previous: str, *, check_mode: bool) -> bool:
        """Add the new password; return whether it was missing."""
        if self.accepts(password):
            return False
        if check_mode:
            self.log_in(previous).close()
        else:
            self.change(previous, f"#{digest(password)}")
        return True

    def rules(self, password: str) -> str:
        """Read the line of the user; empty if it may not read it."""
        try:
            with contextlib.closing(self.log_in(password)) as client:
                lines = client.lines("ACL", "LIST")
        except RefusedError:
            return ""
        return next((line for line in lines if line.startswith(f"user {self._name} ")), "")


class Change:
    """A change of the password on all servers of a Redis."""

    def __init__(self, params: Options, *, check_mode: bool) -> None:
        """Find the primary."""
        self._server, self._timeout = params["redis"], params["timeout"]
        self._new, self._former = self._server["password"], params["previous_password"]
        self._check_mode = check_mode
        self._changed = False
        self._unchanged: list[str] = []
        endpoints = [(self._server["host"], self._server["port"])]
        if self._server["sentinels"]:
            servers = servers_of_sentinels(self._server, self._timeout)
            endpoints = [servers.primary, *servers.replicas]
        self._primary, *self._replicas = (self._account(*endpoint) for endpoint in endpoints)

    def add(self) -> None:
        """Let all servers accept the new password, then use it among each other.

        Raises:
            UnchangedServersError: Sentinels may promote a replica that does not accept it.
        """
        self._changed |= self._primary.add(self._new, self._former, check_mode=self._check_mode)
        if not self._former:
            return
        usable = self._new if self._primary.accepts(self._new) else self._former
        with contextlib.closing(self._primary.log_in(usable)) as client:
            if not self._server["sentinels"]:
                self._replicas = [self._account(*endpoint) for endpoint in replicas_of(client)]
            for replica in self._replicas:
                with self._collecting_failures(replica.endpoint):
                    self._changed |= replica.add(
                        self._new, self._former, check_mode=self._check_mode
                    )
            # Not before all accept it, because each may become the primary.
            if self._replicas and not self._unchanged:
                for account in (self._primary, *self._replicas):
                    with self._collecting_failures(account.endpoint):
                        self._replicate(account)
            if self._server["sentinels"] and not self._unchanged:
                self._tell_sentinels(client)
        if self._unchanged and self._server["sentinels"]:
            raise UnchangedServersError(
                f"Redis accepts both passwords, except for: {'; '.join(self._unchanged)}"
            )

    def remove(self, *, others: bool) -> None:
        """Remove the former password from all servers.

        Args:
            others: Whether to remove all passwords except the new one from the primary instead.

        Raises:
            UnchangedServersError: A server may need the former one.
        """
        if self._unchanged:
            raise UnchangedServersError(
                f"Redis still accepts the former password: {'; '.join(self._unchanged)}"
            )
        for account in [self._primary] if others else [*self._replicas, self._primary]:
            if others:
                known = [one[1:] for one in account.rules(self._new).split() if one[0] == "#"]
                obsolete = [one for one in known if one != digest(self._new)]
            else:
                is_accepted = self._former and account.accepts(self._former)
                obsolete = [digest(self._former)] if is_accepted else []
            if obsolete:
                self._changed = True
                if not self._check_mode:
                    account.change(self._new, *(f"!{one}" for one in obsolete))

    def result(self, *, returns_rules: bool) -> Result:
        """Store the change, and describe it."""
        is_new = not self._check_mode or self._primary.accepts(self._new)
        # Also if nothing has changed, because an earlier run may have been interrupted before it.
        stores = (self._changed or self._former) and not self._check_mode
        return Result(
            changed=self._changed,
            accepts_previous=bool(self._former) and self._primary.accepts(self._former),
            unchanged=self._unchanged,
            rules=self._primary.rules(self._new) if returns_rules and is_new else "",
            stored=bool(stores) and self._persist(),
        )

    def _account(self, host: str, port: int) -> Account:
        return Account({**self._server, "host": host, "port": port}, self._timeout)

    @contextlib.contextmanager
    def _collecting_failures(self, endpoint: str) -> Iterator[None]:
        """Remember a server that cannot be changed, and go on."""
        try:
            yield
        except (OSError, RefusedError) as error:
            self._unchanged.append(f"{endpoint} ({error})")

    def _replicate(self, account: Account) -> None:
        usable = self._new if account.accepts(self._new) else self._former
        with contextlib.closing(account.log_in(usable)) as client:
            self._changed |= replicate_with(
                client, self._server["user"], self._former, self._new, check_mode=self._check_mode
            )

    def _tell_sentinels(self, client: Redis) -> None:
        """Tell them again also if nothing has changed, because their password cannot be read."""
        with self._collecting_failures(self._primary.endpoint):
            # They connect again after a change of their password.
            deadline = time.monotonic() + self._timeout
            while not (users := sentinel_users(client)) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            if not users:
                raise RefusedError("no Sentinel is logged in there; correct its auth-pass")
            if (self._server["user"] or DEFAULT_USER) in users and not self._check_mode:
                tell_sentinels(self._server, self._new, self._timeout)

    def _persist(self) -> bool:
        stored = []
        for account in (self._primary, *self._replicas):
            with contextlib.suppress(OSError), contextlib.closing(account.log_in(self._new)) as it:
                stored.append(persist(it, rewrites=bool(self._server["sentinels"])))
        return all(stored)


def main() -> None:
    """Change the passwords, or fail with the reason."""
    module = AnsibleModule(
        argument_spec={
            "redis": {"type": "dict", "options": REDIS_SPEC, "required": True},
            "previous_password": {"type": "str", "default": "", "no_log": True},
            "remove_previous": {"type": "bool", "default": False},
            "remove_others": {"type": "bool", "default": False},
            "returns_rules": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    server = params["redis"]
    name = server["user"] or DEFAULT_USER
    try:
        change = Change(params, check_mode=module.check_mode)
        change.add()
        if params["remove_previous"] or params["remove_others"]:
            change.remove(others=params["remove_others"])
        result = change.result(returns_rules=params["returns_rules"])
    except RefusedError as refusal:
        module.fail_json(
            msg=f"Redis refuses to change the passwords of its user {name} ({refusal}). If this user may not, an "
            f"administrator of Redis adds the new password: ACL SETUSER {name} '>NEW', then run the playbook again; "
            f"when it has ended, ACL SETUSER {name} '<FORMER'."
        )
    except SentinelError as error:
        module.fail_json(msg=str(error))
    except UnchangedServersError as error:
        module.fail_json(
            msg=f"{error}. Start these servers and let this host reach them, and run the playbook again. If the user "
            f"{name} may not change them, an administrator does on each: ACL SETUSER {name} '>NEW', then CONFIG SET "
            f"masterauth NEW if it replicates as this user."
        )
    except OSError as error:
        module.fail_json(
            msg=f"Redis at {format_endpoint(server['host'], server['port'])} cannot be reached ({error}). Correct the "
            f"variables, or start it, and run the playbook again."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
