"""Check systemd, the account, the sites of nginx, and Docker on the host."""

from __future__ import annotations

import pwd
import re
from pathlib import Path
from typing import TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_commands import (
    output_of,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_nginx_files import (
    Listener,
    is_packaged,
    listeners,
    servers,
)

# Names in the SecurityOptions of `docker info` that mean that user ids in containers are remapped.
REMAPPED = {
    "userns": "maps the users of containers to others (userns-remap)",
    "rootless": "is run by a user who is not root (rootless)",
}


class AccountOptions(TypedDict):
    """The option `account` of the module."""

    name: str
    uid: int


ACCOUNT_OPTIONS = {
    "name": {"type": "str", "required": True},
    "uid": {"type": "int", "required": True},
}


class ProxyPortOptions(TypedDict):
    """A port that the role's site is the default server of."""

    # Name of the role's variable.
    variable: str
    port: int


class ProxyOptions(TypedDict):
    """The option `proxy` of the module."""

    # Path of the main configuration file.
    main: str
    # Paths of the role's own files in it.
    files: list[str]
    # Paths of the packaged sites that the role removes unless they were changed.
    packaged: list[str]
    # Names that the role's site serves.
    names: list[str]
    # Whether it also serves names that no other site has.
    default_server: bool
    ports: list[ProxyPortOptions]


def systemd_problems() -> list[str]:
    """Check that systemd runs this host."""
    if Path("/run/systemd/system").is_dir():
        return []
    return [
        (
            "This host is not run by systemd. Deploy to Debian 12 or later, or Ubuntu 22.04 or "
            "later, started by systemd."
        )
    ]


def account_problems(account: AccountOptions) -> list[str]:
    """Check that the user id is free or belongs to the account of the backend."""
    name, uid = str(account["name"]), int(account["uid"])
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        return []
    if owner == name:
        return []
    return [f"ag_ui_uid: user id {uid} belongs to {owner!r} on this host. Choose one that is free."]


def own_files(proxy: ProxyOptions) -> set[Path]:
    """Return the files of the role, and the packaged sites that it removes."""
    own = {Path(path) for path in proxy["files"]}
    return own | {path for path in map(Path, proxy["packaged"]) if is_packaged(path)}


def proxy_problems(proxy: ProxyOptions) -> list[str]:
    """Check that the other sites of this nginx and that of the role do not take requests from one another."""
    own = own_files(proxy)
    others = [listener for listener in listeners(Path(proxy["main"])) if listener.file not in own]
    if proxy["default_server"]:
        return default_server_problems(proxy, others) + name_problems(proxy)
    return missing_default_problems(proxy, others) + name_problems(proxy)


def default_server_problems(proxy: ProxyOptions, others: list[Listener]) -> list[str]:
    """Check that no other site of this nginx is the default server on a port of the role."""
    return [
        (
            f"{option['variable']}: {other.file} already has the default server of port {other.port} of nginx "
            f"on this host. Take default_server out of its listen line, set {option['variable']} to another port, "
            f"or set ag_ui_default_server to false."
        )
        for option in proxy["ports"]
        for other in dict.fromkeys(others)
        if other.is_default and other.port == int(option["port"])
    ]


def missing_default_problems(proxy: ProxyOptions, others: list[Listener]) -> list[str]:
    """Check that another site is the default server of each port that other sites have.

    Without one, nginx uses the first site that it reads, which would be that of the role instead of the former one.
    """
    problems = []
    for option in proxy["ports"]:
        sharing = [other for other in others if other.port == int(option["port"])]
        if sharing and not any(other.is_default for other in sharing):
            problems.append(
                f"ag_ui_default_server is false, but no site of nginx on this host is the default server of port "
                f"{option['port']}, so the site of the role would take its place. Add default_server to the listen "
                f"line of {sharing[0].file} or of another site, or set ag_ui_default_server to true."
            )
    return problems


def name_problems(proxy: ProxyOptions) -> list[str]:
    """Check that no other site of this nginx has a name of the role's site on one of its ports.

    nginx would only warn, and serve the site that it reads first.
    """
    own = own_files(proxy)
    names = {name.lower() for name in proxy["names"]}
    return [
        (
            f"ag_ui_server_name, ag_ui_server_aliases: {server.file} already serves {', '.join(sorted(taken))} on "
            f"port {option['port']} of nginx on this host. Remove the name there, or choose another one, or set "
            f"{option['variable']} to another port."
        )
        for server in servers(Path(proxy["main"]))
        if server.file not in own and (taken := server.names & names)
        for option in proxy["ports"]
        if int(option["port"]) in server.ports
    ]


def engine_problems() -> list[str]:
    """Check that user ids are not remapped: containers use the host's network and read files of the host."""
    options = output_of(
        "docker", "info", "--format", "{{range .SecurityOptions}}{{println .}}{{end}}"
    )
    names = re.findall(r"name=(\w+)", options)
    return [
        (
            f"The docker of this host {REMAPPED[name]}: its containers cannot use the network of the host or read "
            f"the files of the account. Remove that setting from /etc/docker/daemon.json or from its unit, restart "
            f"docker, and deploy again."
        )
        for name in names
        if name in REMAPPED
    ]
