"""`ag-ui status`: the state of the site, and what is wrong with it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (
    read_record,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import (
    release_directory,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_checks import (
    report_lines,
    site_checks,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
    site_status,
)

from ag_ui_command.errors import FAILED
from ag_ui_command.output import say

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
        InstanceStatus,
        SiteStatus,
    )


def show_status(site: Site, *, as_json: bool) -> int:
    """Print the state.

    Args:
        site: The site.
        as_json: Whether to print it for programs.

    Returns:
        0, or 1 if a check has failed.
    """
    status = site_status(site)
    checks = site_checks(site, status)
    if as_json:
        say(json.dumps({"status": status, "checks": checks}, indent=2))
    else:
        problems = [check for check in checks if check["status"] != "ok"]
        say(*_summary(site, status))
        say("", *(["Problems:", *report_lines(problems)] if problems else ["No problems found."]))
    return FAILED if any(check["status"] == "failed" for check in checks) else 0


def _summary(site: Site, status: SiteStatus) -> list[str]:
    expires = status["certificate_expires"]
    date = time.strftime("%Y-%m-%d", time.gmtime(expires)) if expires else "unknown"
    numbers = {
        "waiting": status["lag"],
        "being stored": status["pending"],
        "open dead letters": status["dead_letters"],
    }
    stream = (f"{'unknown' if value is None else value} {name}" for name, value in numbers.items())
    lines = [
        f"Instance {instance['port']}  {_instance(instance)}" for instance in status["instances"]
    ]
    lines += [
        f"Release        {_release(site, status['current'])}",
        f"Previous       {_release(site, status['previous'])}",
        f"Address        https://{site['server_name']}:{site['https_port']}, {_proxy(status)}",
        f"Certificate    until {date}",
        f"Events         {', '.join(stream)}",
        f"Maintenance    {'on since ' + status['maintenance'] if status['maintenance'] else 'off'}",
    ]
    for disk in status["disks"]:
        free, total = disk["free"] / 1e9, disk["total"] / 1e9
        lines.append(f"Disk           {disk['path']}: {free:.1f} GB of {total:.1f} GB free")
    return lines


def _instance(instance: InstanceStatus) -> str:
    release = f"release {instance['release']}" if instance["release"] else "no container"
    if instance["ready"]:
        trial = ", on trial" if instance["on_trial"] else ""
        failed = "".join(f"; {name}: {detail}" for name, detail in instance["failed"].items())
        return f"ready, {instance['health'] or 'without health report'}, {release}{trial}{failed}"
    if instance["state"] == "inactive" and not instance["enabled"]:
        return "drained"
    return f"not ready ({instance['state'] or 'unknown'}), {release}; {instance['reason']}"


def _release(site: Site, release: str) -> str:
    if not release:
        return "none"
    record = read_record(release_directory(site, release))
    return f"{release}, deployed {record.get('finished', 'at an unknown time')} by {record.get('by') or 'unknown'}"


def _proxy(status: SiteStatus) -> str:
    proxy = status["proxy"]
    return proxy["error"] or proxy["health"] or f"answers {proxy['status']} without a health report"
