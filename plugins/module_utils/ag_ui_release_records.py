"""Read and write which releases a host has, who deployed them, and how that ended."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_text_files import (
    write_atomically,
)

# Marker file in the directory of each release that all instances have run; its mtime is the time of the deployment.
DEPLOYED_MARKER = "deployed"
RECORD = "record.json"


class Record(TypedDict, total=False):
    """The file record.json of a release. A release that was refused, or whose deployment was interrupted, has none."""

    release: str
    image: str
    # Address and ports that the instances listen on.
    address: str
    ports: list[int]
    # User and host that deployed it.
    by: str
    # Times in ISO 8601, in UTC.
    started: str
    finished: str
    # deployed, failed, or rolled_back if another release was deployed by a rollback since.
    outcome: str
    # Why it failed; empty otherwise.
    reason: str


def utc_now() -> str:
    """Return the time in ISO 8601, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read_record(release: Path) -> Record:
    """Read the record of a release; empty if there is none or it is not valid."""
    try:
        record: Record = json.loads((release / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(release: Path, record: Record) -> None:
    """Replace the record of a release atomically."""
    write_atomically(release / RECORD, json.dumps(record, indent=2) + "\n")


def linked_release(directory: Path, link: str) -> str:
    """Return the release that `current` or `previous` points to; empty if there is no such link."""
    path = directory / link
    return path.readlink().name if path.is_symlink() else ""


def link_release(directory: Path, link: str, release: str) -> None:
    """Point `current` or `previous` at a release, atomically."""
    temporary = directory / f".{link}.new"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("releases", release))
    temporary.replace(directory / link)


def record_deployment(directory: Path, record: Record) -> bool:
    """Record that all instances run a release: its record, its marker, and the links.

    Args:
        directory: Configuration directory.
        record: The record, without `finished`, `outcome` and `reason`.

    Returns:
        Whether the release was not the current one.
    """
    name = record["release"]
    release = directory / "releases" / name
    current = linked_release(directory, "current")
    if current == name and (release / RECORD).exists():
        return False
    write_record(release, {**record, "finished": utc_now(), "outcome": "deployed", "reason": ""})
    (release / DEPLOYED_MARKER).touch()
    if current and current != name:
        link_release(directory, "previous", current)
    link_release(directory, "current", name)
    return True


def deployed_releases(directory: Path) -> list[str]:
    """Return the releases that all instances have run, the most recently deployed first."""
    markers = list((directory / "releases").glob(f"*/{DEPLOYED_MARKER}"))
    markers.sort(key=lambda marker: marker.stat().st_mtime, reverse=True)
    return [marker.parent.name for marker in markers]
