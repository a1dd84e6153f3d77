"""What a host must know of its deployment, so that it can be checked and operated without the inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict, cast

SITE_FILE = Path("/etc/ag-ui/site.json")


class Site(TypedDict):
    """The deployment of a host, as the role describes it."""

    server_name: str
    https_port: int
    # Address and ports that the instances listen on.
    address: str
    ports: list[int]
    # Path of the certificates that clients trust; empty for those of the system.
    ca: str
    # What to do if the certificate expires soon.
    certificate_remedy: str
    # Seconds within which a ready instance must report healthy, and for which a release is watched.
    healthy_within: int
    watch_seconds: int
    target: str
    # Name of the instances' units without port, and the directories of the permanent units and those under trial.
    unit: str
    unit_directory: str
    trial_directory: str
    configuration: str
    certificate: str
    state: str
    # Main configuration file of nginx, the files of the role in it, and the file that marks them as loaded.
    nginx: str
    proxy_site: str
    proxy_main: str
    proxy_stamp: str
    maintenance: str
    lock: str


def read_site(path: Path) -> Site | None:
    """Read the file that the role has written; None if there is none or it is damaged."""
    try:
        site: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("Site", site) if isinstance(site, dict) else None


def unit_of(site: Site, port: int) -> str:
    """Return the name of the unit of an instance."""
    return f"{site['unit']}@{port}.service"


def container_of(site: Site, port: int) -> str:
    """Return the name of the container of an instance."""
    return f"{site['unit']}-{port}"


def release_directory(site: Site, release: str) -> Path:
    """Return the directory of a release."""
    return Path(site["configuration"], "releases", release)
