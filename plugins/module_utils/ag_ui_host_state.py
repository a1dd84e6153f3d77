"""Read the state of the host: packages, the engine, the certificate, units, containers and releases."""

from __future__ import annotations

import grp
import pwd
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_certificates import (
    parse,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_commands import (
    output_of,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (
    linked_release,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_units import (
    UnitState,
    enabled_units,
    instance_units,
)

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host import (
        AccountOptions,
    )

# A self-signed certificate is replaced when it expires sooner.
RENEWAL_SECONDS = 30 * 24 * 3600


class HostState(TypedDict):
    """What the module returns; its RETURN describes the keys."""

    ipv6: bool
    gid: int | None
    engine: bool
    running: list[str]
    missing: list[str]
    nginx: str
    certificate: list[str]
    enabled: list[str]
    images: list[str]
    instances: dict[str, str]
    units: dict[str, UnitState]
    releases: list[str]
    current: str


def missing_packages(names: list[str]) -> list[str]:
    """Return the packages that are not installed; uses dpkg, because python3-apt may be missing."""
    packages = output_of("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n")
    installed = set(packages.splitlines())
    return [name for name in names if f"installed {name}" not in installed]


def account_gid(account: AccountOptions) -> int | None:
    """Return the id of the account's group; None if there is none, or no such user with this id and group."""
    try:
        user, group = pwd.getpwnam(account["name"]), grp.getgrnam(account["name"])
    except KeyError:
        return None
    return group.gr_gid if (user.pw_uid, user.pw_gid) == (account["uid"], group.gr_gid) else None


def running_units(units: list[str]) -> list[str]:
    """Return those of the units that are enabled and active."""
    if not units:
        return []
    properties = output_of("systemctl", "show", "--property=Id,ActiveState,UnitFileState", *units)
    found = []
    for block in properties.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines())
        if values.get("ActiveState") == "active" and values.get("UnitFileState") == "enabled":
            found.append(values["Id"])
    return found


def nginx_version() -> str:
    """Return the version of nginx, which it writes to standard error; empty if it is not installed."""
    try:
        completed = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    version = re.search(r"nginx/([0-9.]+)", completed.stderr)
    return version[1] if version else ""


def certificate_names(path: str) -> list[str]:
    """Return the names of a certificate; none if it is missing or expires within 30 days."""
    file = Path(path)
    certificate = parse(file.read_text(errors="replace")) if file.is_file() else None
    if certificate is None or certificate.expires < time.time() + RENEWAL_SECONDS:
        return []
    return certificate.names


def running_instances() -> dict[str, str]:
    """Return the release of each running container with the label, by container name."""
    template = '{{.Names}} {{.Label "ag-ui.release"}}'
    containers = output_of("docker", "ps", "--filter", "label=ag-ui.release", "--format", template)
    return dict(line.split(" ", 1) for line in containers.splitlines())


def existing_releases(directory: Path) -> list[str]:
    """Return the names of the releases on the host."""
    return sorted(path.name for path in directory.glob("*") if path.is_dir())


def host_state(
    account: AccountOptions,
    services: list[str],
    packages: list[str],
    certificate: str,
    configuration: Path,
) -> HostState:
    """Read the state of everything that the role may change.

    Args:
        account: The account of the backend.
        services: Units to look for besides those of the instances.
        packages: Names of packages to look for.
        certificate: Path of the certificate.
        configuration: Configuration directory, which contains the releases.

    Returns:
        The state, in the form that the module returns.
    """
    engine = bool(shutil.which("docker") and output_of("systemctl", "cat", "docker.service"))
    images = output_of("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    return {
        "ipv6": Path("/proc/net/if_inet6").exists(),
        "gid": account_gid(account),
        "engine": engine,
        "running": running_units(services),
        "missing": missing_packages(packages),
        "nginx": nginx_version(),
        "certificate": certificate_names(certificate),
        "enabled": enabled_units(),
        "images": images.splitlines(),
        "instances": running_instances(),
        "units": instance_units(),
        "releases": existing_releases(configuration / "releases"),
        "current": linked_release(configuration, "current"),
    }
