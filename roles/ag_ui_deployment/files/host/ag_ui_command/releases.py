"""`ag-ui releases`: which releases this host has, and how their deployment ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (
    deployed_releases,
    linked_release,
    read_record,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
    image_of,
)

from ag_ui_command.output import say

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site


def listed(site: Site) -> list[dict[str, object]]:
    """Return the releases: those that ran, the most recently deployed first, then the others."""
    directory = Path(site["configuration"])
    deployed = deployed_releases(directory)
    others = sorted(path.name for path in (directory / "releases").glob("*") if path.is_dir())
    links = {linked_release(directory, link): link for link in ("previous", "current")}
    releases: list[dict[str, object]] = []
    for name in dict.fromkeys([*deployed, *others]):
        path = directory / "releases" / name
        record = read_record(path)
        # The record of a release of an earlier version of the role is missing.
        outcome = record.get("outcome") or ("deployed" if name in deployed else "incomplete")
        release: dict[str, object] = {
            **record,
            "release": name,
            "image": image_of(path),
            "outcome": outcome,
            "link": links.get(name, ""),
        }
        releases.append(release)
    return releases


def show_releases(site: Site, *, as_json: bool) -> None:
    """Print the releases."""
    releases = listed(site)
    if as_json:
        say(json.dumps(releases, indent=2))
        return
    if not releases:
        say("There are no releases on this host. Deploy to it.")
    for release in releases:
        ended = release.get("finished") or "at an unknown time"
        line = f"{release['link']:<9} {release['release']:<18} {release['outcome']:<12} {ended}"
        say(f"{line}  by {release.get('by') or 'unknown'}  {release['image'] or 'unknown image'}")
        reason = str(release.get("reason") or "")
        if reason:
            say(*(f"{'':<10}{text}" for text in reason.splitlines()))
