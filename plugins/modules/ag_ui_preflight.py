#!/usr/bin/python
"""Check on the target, before anything is changed, whether a deployment can succeed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_datastores import (
    database_problems,
    has_user,
    previous_logins,
    redis_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_gateway import (
    gateway_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host import (
    ACCOUNT_OPTIONS,
    AccountOptions,
    ProxyOptions,
    account_problems,
    engine_problems,
    own_files,
    proxy_problems,
    systemd_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (
    host_state,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_nginx_files import (
    main_directives,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_ports import (
    PortOptions,
    port_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_postgresql import (
    DATABASE_SPEC,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis import REDIS_SPEC

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_postgresql import (
        DatabaseOptions,
    )
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis import (
        RedisOptions,
    )

DOCUMENTATION = r"""
---
module: ag_ui_preflight
short_description: Check whether a deployment can succeed, and read the state of the target
description:
  - Checks systemd, the account, ports, Docker, the gateway, nginx, Redis and PostgreSQL. Fails with all problems at
    once, each with the variable that is wrong and the remedy.
  - Returns the state of the target that the rest of the role needs, so that a run without changes reads it only once.
  - Changes nothing.
options:
  redis:
    description: Redis to log in to. If it is omitted, Redis is not checked.
    type: dict
    suboptions:
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
      password:
        description: Password; empty if there is none.
        type: str
        default: ""
      db:
        description: Number of the database to select.
        type: int
        default: 0
      tls:
        description: Whether to use TLS. The certificate and its name are verified.
        type: bool
        default: false
      ca:
        description: CA certificates in PEM; if it is empty, those of the system.
        type: str
        default: ""
      sentinels:
        description: Sentinels that name the primary, each as C(host:port). If there are any, O(redis.host) and O(redis.port) are not used.
        type: list
        elements: str
        default: []
      sentinel_service:
        description: Name by which the Sentinels know the primary.
        type: str
        default: mymaster
      sentinel_user:
        description: ACL user at the Sentinels; if it is empty, the default user.
        type: str
        default: ""
      sentinel_password:
        description: Password at the Sentinels; empty if there is none.
        type: str
        default: ""
  database:
    description: PostgreSQL to log in to. If it is omitted, PostgreSQL is not checked.
    type: dict
    suboptions:
      host:
        description: Host name or address.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
      standbys:
        description: Further servers of the cluster, each as C(host:port). One of all must accept writes.
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
      logins:
        description: Logins to check.
        type: list
        elements: dict
        required: true
        suboptions:
          variables:
            description: Names of the role's variables for the login, which messages contain.
            type: str
            required: true
          user:
            description: PostgreSQL role.
            type: str
            required: true
          password:
            description: Password of the role.
            type: str
            default: ""
          previous_password:
            description: Password that is accepted too, because it is about to be changed; empty for none.
            type: str
            default: ""
  ports:
    description: TCP ports that must be free, or used by the role itself.
    type: list
    elements: dict
    default: []
    suboptions:
      variable:
        description: Name of the role's variable for the port.
        type: str
        required: true
      port:
        description: The port.
        type: int
        required: true
      unit:
        description: The systemd unit that may use the port.
        type: str
      process:
        description: Name of the process that may use the port.
        type: str
  proxy:
    description: Configuration of nginx. If it is omitted, nginx is not checked.
    type: dict
    suboptions:
      main:
        description: Path of the main configuration file.
        type: path
        required: true
      files:
        description: Paths of the role's own files.
        type: list
        elements: path
        required: true
      packaged:
        description: Paths of packaged sites that the role removes if they are unchanged.
        type: list
        elements: path
        required: true
      names:
        description: Host names and addresses that the role's site serves.
        type: list
        elements: str
        required: true
      default_server:
        description: Whether the role's site is the default server on its ports.
        type: bool
        required: true
      ports:
        description: Ports of the role's site, each with C(variable) and C(port).
        type: list
        elements: dict
        required: true
  gateway:
    description: Base URL of the LiteLLM gateway; if it is empty, the gateway is not checked. It need not respond.
    type: str
    default: ""
  account:
    description: Account of the backend; its user id must be free or belong to it.
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
  administrator:
    description: Email of an account to look for; if it is empty, none is.
    type: str
    default: ""
  services:
    description: Systemd units of which to return those that are enabled and active.
    type: list
    elements: str
    default: []
  packages:
    description: Packages of which to return the missing ones.
    type: list
    elements: str
    default: []
  certificate:
    description: Path of the certificate of which to return the names.
    type: path
    required: true
  configuration:
    description: Configuration directory, which contains the releases.
    type: path
    default: /etc/ag-ui
  paths:
    description: Paths of which to return the existing ones.
    type: list
    elements: path
    default: []
  timeout:
    description: Seconds for a connection to a server, and for each of its responses.
    type: float
    default: 5
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Check the target before changing anything
  hx_citadel.shield_ag_ui.ag_ui_preflight:
    account: {name: agui, uid: 1001}
    certificate: /etc/ag-ui/tls/server.crt
    configuration: /etc/ag-ui
    ports: [{variable: ag_ui_https_port, port: 443, process: nginx}]
"""

RETURN = r"""
previous_logins:
  description: Roles for which PostgreSQL accepts only the previous password.
  returned: success
  type: list
  elements: str
problems:
  description: The problems, each with the variable that is wrong and the remedy.
  returned: failure
  type: list
  elements: str
ipv6:
  description: Whether the target can listen on IPv6.
  returned: success
  type: bool
gid:
  description: Id of the group of O(account); null if there is no group of this name, or no such user with this id and group.
  returned: success
  type: int
administrator:
  description: Whether there is an account with the email O(administrator).
  returned: success
  type: bool
running:
  description: Those of O(services) that are enabled and active.
  returned: success
  type: list
  elements: str
engine:
  description: Whether a Docker engine is installed, from any source.
  returned: success
  type: bool
missing:
  description: Those of O(packages) that are not installed.
  returned: success
  type: list
  elements: str
existing:
  description: Those of O(paths) that exist.
  returned: success
  type: list
  elements: str
nginx:
  description: Version of nginx; empty if it is not installed.
  returned: success
  type: str
proxy_directives:
  description: Directives outside of all blocks in the configuration of nginx, without those of the role's own files.
  returned: success
  type: list
  elements: str
certificate:
  description: Host names and addresses of the certificate; empty if it is missing or expires within 30 days.
  returned: success
  type: list
  elements: str
enabled:
  description: Links by which systemd starts the role's units, relative to /etc/systemd/system.
  returned: success
  type: list
  elements: str
images:
  description: Images of the engine, each as name and tag.
  returned: success
  type: list
  elements: str
instances:
  description: Release of each running container of an instance, by the name of the container.
  returned: success
  type: dict
units:
  description: >-
    Units of instances by name, whether or not they are enabled. Each has C(release), the release that it starts (empty
    for a unit under trial), and C(endpoint), where the instance listens.
  returned: success
  type: dict
releases:
  description: Names of the releases on the host.
  returned: success
  type: list
  elements: str
current:
  description: The release that all instances ran at the end of the last deployment; empty if there is none.
  returned: success
  type: str
"""


class Options(TypedDict):
    """The options of the module."""

    redis: RedisOptions | None
    database: DatabaseOptions | None
    ports: list[PortOptions]
    proxy: ProxyOptions | None
    gateway: str
    account: AccountOptions
    administrator: str
    services: list[str]
    packages: list[str]
    certificate: str
    configuration: str
    paths: list[str]
    timeout: float


def problems_of(params: Options) -> list[str]:
    """Do all checks; return a message for each problem, with the variable that is wrong and the remedy."""
    problems = systemd_problems() + account_problems(params["account"])
    for port in params["ports"]:
        problems += port_problems(port)
    problems += engine_problems()
    if params["gateway"]:
        problems += gateway_problems(params["gateway"], params["timeout"])
    if params["proxy"]:
        problems += proxy_problems(params["proxy"])
    if params["redis"]:
        problems += redis_problems(params["redis"], params["timeout"])
    if params["database"]:
        problems += database_problems(params["database"], params["timeout"])
    return problems


def main() -> None:
    """Collect all problems and fail with all of them, or return the state of the target."""
    module = AnsibleModule(
        argument_spec={
            "redis": {"type": "dict", "options": REDIS_SPEC},
            "database": {"type": "dict", "options": DATABASE_SPEC},
            "ports": {"type": "list", "elements": "dict", "default": []},
            "proxy": {"type": "dict"},
            "gateway": {"type": "str", "default": ""},
            "account": {"type": "dict", "options": ACCOUNT_OPTIONS, "required": True},
            "administrator": {"type": "str", "default": ""},
            "services": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "certificate": {"type": "path", "required": True},
            "configuration": {"type": "path", "default": "/etc/ag-ui"},
            "paths": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    problems = problems_of(params)
    if problems:
        module.fail_json(
            msg="Nothing was changed on this host. Correct these problems first:\n"
            + "\n".join(f"- {problem}" for problem in problems),
            problems=problems,
        )
    proxy = params["proxy"]
    directives = main_directives(Path(proxy["main"]), own_files(proxy)) if proxy else set()
    state = host_state(
        params["account"],
        params["services"],
        params["packages"],
        params["certificate"],
        Path(params["configuration"]),
    )
    database, email, timeout = params["database"], params["administrator"], params["timeout"]
    module.exit_json(
        changed=False,
        existing=[path for path in params["paths"] if os.path.lexists(path)],
        proxy_directives=sorted(directives),
        previous_logins=previous_logins(database, timeout) if database else [],
        administrator=bool(database and email and has_user(database, email, timeout)),
        **state,
    )


if __name__ == "__main__":
    main()
