"""Judge the state of a site: each check is ok, a warning or failed, with the reason and a remedy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import unit_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
        DiskStatus,
        InstanceStatus,
        SiteStatus,
    )

DAY = 24 * 3600
CERTIFICATE_DAYS = 14
MEBIBYTE = 1 << 20
# Free space, in bytes and as a share, below which a disk is a problem. A deployment needs some hundred megabytes.
DISK_FAILED_BYTES = 256 * MEBIBYTE
DISK_WARNING_BYTES = 2048 * MEBIBYTE
DISK_WARNING_SHARE = 0.1
INODES_WARNING_SHARE = 0.05
# Entries that wait for PostgreSQL; more than a few seconds of a busy stream.
LAG_WARNING = 1000

Verdict = Literal["ok", "warning", "failed"]


class Check(TypedDict):
    """The result of one check."""

    name: str
    status: Verdict
    detail: str
    # What to do; empty if the check is ok.
    remedy: str


def ok(name: str, detail: str) -> Check:
    """Make the result of a check that found nothing wrong."""
    return {"name": name, "status": "ok", "detail": detail, "remedy": ""}


def warning(name: str, detail: str, remedy: str) -> Check:
    """Make the result of a check that needs attention, while the service works."""
    return {"name": name, "status": "warning", "detail": detail, "remedy": remedy}


def failed(name: str, detail: str, remedy: str) -> Check:
    """Make the result of a check that found something broken."""
    return {"name": name, "status": "failed", "detail": detail, "remedy": remedy}


def site_checks(site: Site, status: SiteStatus, *, deploying: bool = False) -> list[Check]:
    """Judge the state of a site.

    Args:
        site: The deployment.
        status: Its state.
        deploying: Whether the deployment itself asks, which holds the lock.

    Returns:
        The results, in the order in which an operator needs them.
    """
    checks = [*_units(site, status)]
    for instance in status["instances"]:
        checks += _instance(site, status, instance)
    checks += [*_dependencies(status), *_proxy(site, status), *_certificate(site, status)]
    checks += [*_releases(status), *_stream(status)]
    checks += [_disk(disk) for disk in status["disks"]]
    checks += _host(site, status)
    if not deploying:
        checks += [*_lock(status), *_maintenance(status)]
    return checks


def report_lines(checks: list[Check]) -> list[str]:
    """Return one line for each check, and one for its remedy."""
    lines = []
    for check in checks:
        lines.append(f"{check['status']:<8} {check['name']}: {check['detail']}")
        if check["remedy"]:
            lines.append(f"{'':<8} → {check['remedy']}")
    return lines


def _units(site: Site, status: SiteStatus) -> Iterator[Check]:
    for name, unit in status["units"].items():
        if unit["state"] != "active":
            state = unit["state"] or "unknown to systemd"
            remedy = f"systemctl start {name}; if it fails: journalctl --unit {name}"
            yield failed(name, f"is {state}", remedy)
        elif not unit["enabled"]:
            yield failed(name, "does not start at boot", f"systemctl enable {name}")
        else:
            yield ok(name, "active and enabled")
    if not status["has_address"]:
        yield failed(
            "address",
            f"the instances listen on {site['address']}, which is no address of this host",
            "Give the host this address again, or set ag_ui_bind_address to its new one and deploy "
            "to all hosts of the group.",
        )


def _instance(site: Site, status: SiteStatus, instance: InstanceStatus) -> Iterator[Check]:
    port, unit = instance["port"], unit_of(site, instance["port"])
    name, log = f"instance {port}", f"ag-ui logs {port}"
    if instance["state"] == "inactive" and not instance["enabled"]:
        yield warning(name, "is drained and stays out", f"ag-ui start {port}")
        return
    if not instance["ready"]:
        remedy = f"{log} has the cause. If it does not recover: systemctl restart {unit}"
        yield failed(name, f"is not ready ({instance['state']}): {instance['reason']}", remedy)
        return
    if not instance["enabled"]:
        yield failed(name, "does not start at boot", f"ag-ui start {port}")
    if instance["health"] == "unhealthy":
        reasons = "; ".join(f"{name}: {detail}" for name, detail in instance["failed"].items())
        yield failed(name, f"is unhealthy: {reasons}", f"{log}, then systemctl restart {unit}")
    elif not instance["health"]:
        yield failed(name, "does not report its health", log)
    release, current = instance["release"], status["current"]
    if instance["on_trial"]:
        yield failed(
            name,
            f"runs release {release} on trial, which a reboot undoes",
            "Deploy again, which completes or undoes an interrupted deployment.",
        )
    elif release != current or instance["starts"] != current:
        yield failed(
            name,
            f"runs release {release or 'unknown'} and starts {instance['starts'] or 'none'} at boot; "
            f"the current release is {current or 'none'}",
            "Deploy again, which completes an interrupted deployment.",
        )
    else:
        yield ok(name, f"ready, {instance['health']}, release {release}")


def _dependencies(status: SiteStatus) -> Iterator[Check]:
    """Checks of the instances that are not ok, once for all instances that agree."""
    reported: dict[tuple[str, str], list[int]] = {}
    answering = [one for one in status["instances"] if one["health"]]
    for instance in answering:
        # An unhealthy instance has a defect of its own.
        if instance["health"] != "unhealthy":
            for name, detail in instance["failed"].items():
                reported.setdefault((name, detail), []).append(instance["port"])
    for (name, detail), ports in reported.items():
        seen_by = ", ".join(map(str, ports))
        degrades = any(one["health"] == "degraded" for one in answering if one["port"] in ports)
        make = failed if degrades else warning
        yield make(
            name, f"{detail} (instance {seen_by})", "The detail says which server to look at."
        )
    names = {name for name, _ in reported}
    for name, server in (("redis", "Redis"), ("database", "PostgreSQL")):
        if answering and name not in names:
            yield ok(name, f"{server} answers all instances")


def _proxy(site: Site, status: SiteStatus) -> Iterator[Check]:
    proxy, name = status["proxy"], f"https://{site['server_name']}:{site['https_port']}"
    if status["nginx_error"]:
        yield failed(
            "nginx configuration",
            status["nginx_error"],
            "Correct the file that it names. Until then nginx runs as before, and cannot be restarted.",
        )
    elif not status["nginx_loaded"]:
        yield failed(
            "nginx configuration",
            "nginx has not loaded the files as they are now",
            "Deploy again, with --tags proxy.",
        )
    else:
        yield ok("nginx configuration", "valid and loaded")
    if proxy["error"]:
        remedy = "journalctl --unit nginx, and /var/log/nginx/ag-ui.error.log"
        yield failed("proxy", f"{name} does not answer: {proxy['error']}", remedy)
    elif proxy["health"] != "healthy":
        report = proxy["health"] or "no health report"
        yield failed(
            "proxy",
            f"{name}/health answers {proxy['status']}: {report}",
            "The other checks say what is wrong.",
        )
    else:
        yield ok("proxy", f"{name} is healthy")


def _certificate(site: Site, status: SiteStatus) -> Iterator[Check]:
    expires, remedy = status["certificate_expires"], site["certificate_remedy"]
    if not expires:
        yield failed(
            "certificate",
            f"{site['certificate']} is no certificate",
            "Deploy again, with --tags proxy.",
        )
        return
    days = int((expires - time.time()) // DAY)
    date = time.strftime("%Y-%m-%d", time.gmtime(expires))
    if days < 0:
        yield failed("certificate", f"expired on {date}", remedy)
    elif days < CERTIFICATE_DAYS:
        yield warning("certificate", f"expires on {date}, in {days} days", remedy)
    else:
        yield ok("certificate", f"expires on {date}, in {days} days")
    if not status["proxy"]["error"] and not status["proxy"]["certificate_loaded"]:
        yield failed(
            "certificate",
            f"nginx presents another one than {site['certificate']}",
            "systemctl reload nginx",
        )


def _releases(status: SiteStatus) -> Iterator[Check]:
    if not status["current"]:
        yield failed("release", "no release is recorded as the current one", "Deploy.")
        return
    for release, image in status["missing_images"].items():
        detail = f"the image {image} of release {release} is not on this host"
        if release == status["current"]:
            yield failed("image", f"{detail}: no instance can be restarted", "Deploy again.")
        else:
            yield warning(
                "image", f"{detail}: a rollback to it fails", "The next deployment replaces it."
            )
    if not status["missing_images"]:
        yield ok("image", "of the current and the previous release are on this host")
    for file in status["differing_files"]:
        yield failed(
            "file",
            f"{file} is not that of release {status['current']}",
            "Deploy, which restores it.",
        )
    if not status["differing_files"]:
        yield ok("file", "units and nginx files are those of the release")
    for trial in status["trials"]:
        yield failed(
            "trial",
            f"{trial} is under trial, which a reboot undoes",
            "Deploy again, which completes or undoes an interrupted deployment.",
        )


def _stream(status: SiteStatus) -> Iterator[Check]:
    lag, pending, letters = status["lag"], status["pending"], status["dead_letters"]
    if pending is None:
        yield warning("stream", "it is unknown how many events wait", "See the check of Redis.")
    elif lag is None:
        # Redis before version 7.
        yield ok("stream", f"{pending} events are being stored")
    elif lag > LAG_WARNING:
        yield warning(
            "stream",
            f"{lag} events wait to be stored",
            "If the number grows: see the checks of Redis and PostgreSQL, and ag-ui logs.",
        )
    else:
        yield ok("stream", f"{lag} events wait, {pending} are being stored")
    if letters:
        yield warning(
            "dead letters",
            f"{letters} entries could not be stored as events",
            "GET /admin/stream/dead-letters lists them; docs/operations.md says how to replay or discard them.",
        )


def _disk(disk: DiskStatus) -> Check:
    name = f"disk {disk['path']}"
    share = disk["free"] / disk["total"] if disk["total"] else 1.0
    detail = f"{disk['free'] / 1e9:.1f} GB of {disk['total'] / 1e9:.1f} GB free"
    remedy = "Free space: journalctl --vacuum-size=500M, apt-get clean, and what du --one-file-system shows."
    if disk["free"] < DISK_FAILED_BYTES:
        return failed(name, detail, remedy)
    if disk["free_inodes"] < INODES_WARNING_SHARE:
        return warning(name, f"{disk['free_inodes']:.0%} of its inodes are free", remedy)
    if disk["free"] < DISK_WARNING_BYTES or share < DISK_WARNING_SHARE:
        return warning(name, detail, remedy)
    return ok(name, detail)


def _host(site: Site, status: SiteStatus) -> Iterator[Check]:
    if status["clock_synchronized"] is False:
        yield warning(
            "clock",
            "is not synchronized: tokens and second factors depend on it",
            "Install and start systemd-timesyncd or chrony.",
        )
    if status["reboot_required"]:
        yield warning(
            "host",
            "an upgrade of packages requires a reboot",
            "Reboot at a quiet time, one host of the group after the other: "
            f"{site['target']} starts by itself.",
        )


def _lock(status: SiteStatus) -> Iterator[Check]:
    lock = status["lock"]
    if lock is not None:
        yield warning(
            "lock",
            f"{lock.get('holder', 'somebody')} has held the lock for a {lock.get('purpose', 'deployment')} "
            f"since {lock.get('since', 'an unknown time')}",
            "Wait until that run has ended. If it was killed, run it again; from another controller with "
            "-e ag_ui_force_unlock=true.",
        )


def _maintenance(status: SiteStatus) -> Iterator[Check]:
    if status["maintenance"]:
        yield warning(
            "maintenance",
            f"is on since {status['maintenance']}: clients get 503",
            "ag-ui maintenance off",
        )
