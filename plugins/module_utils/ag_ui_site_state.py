"""Read the state of a running site: units, instances, proxy, stream, disks and releases. Changes nothing."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_certificates import (
    parse,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_commands import (
    output_of,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (
    running_instances,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_instance_control import (
    get_json,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_lock_file import (
    read,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (
    linked_release,
    read_record,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import (
    container_of,
    release_directory,
    unit_of,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_tls import (
    tls_context,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_units import (
    instance_units,
)

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_lock_file import (
        Lock,
    )
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site

TIMEOUT_SECONDS = 10
RESPONSE_MAX_BYTES = 4_000_000
METRIC = re.compile(r"^(ag_ui_\w+) (\S+)$", re.MULTILINE)
FIRST_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)
# Directories whose file systems fill up, if they exist.
DISKS = ("/", "/var", "/var/lib/docker", "/var/lib/containerd", "/var/log", "/tmp")  # noqa: S108 - only looked at
REBOOT_REQUIRED = Path("/run/reboot-required")


class UnitStatus(TypedDict):
    """What systemd says of a unit."""

    # ActiveState, such as active, activating, inactive or failed; empty without systemd.
    state: str
    # Whether it starts at boot.
    enabled: bool


class InstanceStatus(UnitStatus):
    """What one instance runs, and what it says of itself."""

    port: int
    # Release of its container, and the one that its unit starts; empty if there is none.
    release: str
    starts: str
    on_trial: bool
    ready: bool
    # Why it is not ready; empty if it is.
    reason: str
    # healthy, degraded, unhealthy, or empty without a response.
    health: str
    # Its failed checks, each with its explanation, by name.
    failed: dict[str, str]


class ProxyStatus(TypedDict):
    """What a client gets from the proxy."""

    # Why there is no valid TLS connection; empty if there is one.
    error: str
    # Status and health of the response to /health.
    status: int
    health: str
    # Whether nginx presents the certificate in the file.
    certificate_loaded: bool


class DiskStatus(TypedDict):
    """Free space of a file system for programs of root, in bytes, and its share of free inodes."""

    path: str
    total: int
    free: int
    free_inodes: float


class SiteStatus(TypedDict):
    """The state of a site on one host."""

    instances: list[InstanceStatus]
    units: dict[str, UnitStatus]
    current: str
    previous: str
    # Images of these two releases that the engine does not have, by release.
    missing_images: dict[str, str]
    # Installed files that are not those of the current release.
    differing_files: list[str]
    # Units under trial that a deployment has left.
    trials: list[str]
    # The lock of a deployment; None if there is none.
    lock: Lock | None
    # Since when maintenance is on; empty if it is off.
    maintenance: str
    proxy: ProxyStatus
    # Error message of `nginx -t`; empty if the configuration is valid.
    nginx_error: str
    # Whether nginx has loaded the files of the role as they are now.
    nginx_loaded: bool
    # When the certificate expires, as Unix time; 0 if it cannot be read.
    certificate_expires: int
    # Entries that are not stored yet, entries in work, and open dead letters; None if unknown.
    lag: int | None
    pending: int | None
    dead_letters: int | None
    disks: list[DiskStatus]
    # Whether the host has the address that the instances listen on.
    has_address: bool
    # Whether the clock is synchronized; None if the host does not say.
    clock_synchronized: bool | None
    reboot_required: bool


# --- units and instances ------------------------------------------------------------------


def unit_statuses(names: list[str]) -> dict[str, UnitStatus]:
    """Ask systemd for the state of units."""
    shown = output_of("systemctl", "show", "--property=Id,ActiveState,UnitFileState", *names)
    statuses: dict[str, UnitStatus] = {name: {"state": "", "enabled": False} for name in names}
    for block in shown.split("\n\n"):
        fields = dict(re.findall(r"^(\w+)=(.*)$", block, re.MULTILINE))
        if fields.get("Id") in statuses:
            enabled = fields.get("UnitFileState") in {"enabled", "enabled-runtime", "static"}
            statuses[fields["Id"]] = {"state": fields.get("ActiveState", ""), "enabled": enabled}
    return statuses


def failed_checks(health: dict[str, Any]) -> dict[str, str]:
    """Return the explanation of each check in a response of /health that is not ok, by name."""
    return {
        name: str(check.get("detail", "no detail"))
        for name, check in health.get("checks", {}).items()
        if check.get("status") != "ok"
    }


def instance_statuses(site: Site) -> list[InstanceStatus]:
    """Ask every instance of the site for its readiness and health."""
    permanent, trial = Path(site["unit_directory"]), Path(site["trial_directory"])
    ports = site["ports"]
    units = unit_statuses([unit_of(site, port) for port in ports])
    files, running = instance_units(permanent, trial), running_instances()
    statuses = []
    for port in ports:
        unit = unit_of(site, port)
        started = files.get(unit, {"release": "", "endpoint": ""})
        endpoint = started["endpoint"] or f"{site['address']}:{port}"
        code, readiness = get_json(f"http://{endpoint}/health/ready")
        health = get_json(f"http://{endpoint}/health")[1] if code else {}
        reason = readiness.get("detail", f"/health/ready returns {code}") if code else "no response"
        status: InstanceStatus = {
            **units[unit],
            "port": port,
            "release": running.get(container_of(site, port), ""),
            "starts": started["release"],
            "on_trial": (trial / unit).exists(),
            "ready": code == http.client.OK,
            "reason": "" if code == http.client.OK else str(reason),
            "health": str(health.get("status", "")),
            "failed": failed_checks(health),
        }
        statuses.append(status)
    return statuses


# --- releases -----------------------------------------------------------------------------


def setting(file: Path, name: str) -> str:
    """Read a value of an environment file, which may be quoted as in backend.env; empty if it has none."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(rf"^{name}=('?)(.*)\1$", text, re.MULTILINE)
    if not found:
        return ""
    return re.sub(r"\\(.)", r"\1", found[2]) if found[1] else found[2]


def image_of(release: Path) -> str:
    """Return the image of a release; empty if the release is damaged."""
    return read_record(release).get("image", "") or setting(release / "release.env", "AG_UI_IMAGE")


def missing_images(site: Site, releases: list[str]) -> dict[str, str]:
    """Return the images of releases that the engine does not have; nothing pulls them again."""
    images = {name: image_of(release_directory(site, name)) for name in releases if name}
    return {
        name: image or "its name is unknown"
        for name, image in images.items()
        if not image or not output_of("docker", "image", "inspect", "--format", "{{.Id}}", image)
    }


def differing_files(site: Site, current: str) -> list[str]:
    """Return the installed files that differ from those of the current release."""
    release = release_directory(site, current)
    expected = {
        Path(site["unit_directory"], unit_of(site, port)): release / f"{site['unit']}@.service"
        for port in site["ports"]
    }
    expected[Path(site["proxy_site"])] = release / "nginx-site.conf"
    expected[Path(site["proxy_main"])] = release / "nginx-main.conf"
    return [
        str(installed)
        for installed, original in expected.items()
        # Releases of earlier versions of the role have no files of nginx.
        if original.is_file()
        and (not installed.is_file() or installed.read_bytes() != original.read_bytes())
    ]


def maintenance_since(path: Path) -> str:
    """Return since when maintenance is on; empty if it is off."""
    try:
        return path.read_text(encoding="utf-8").strip() or "an unknown time"
    except OSError:
        return ""


# --- proxy --------------------------------------------------------------------------------


def ask_proxy(site: Site) -> ProxyStatus:
    """Request /health through the proxy, and verify its certificate as a client does."""
    status: ProxyStatus = {"error": "", "status": 0, "health": "", "certificate_loaded": False}
    name, port = site["server_name"], site["https_port"]
    try:
        authorities = Path(site["ca"]).read_text(encoding="utf-8") if site["ca"] else ""
        context = tls_context(authorities, verify=True, check_name=True)
        # As curl and browsers verify: from Python 3.13 on, the default rejects some valid certificates.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name) as encrypted,
        ):
            presented = encrypted.getpeercert(binary_form=True)
            status["certificate_loaded"] = presented == certificate_in(Path(site["certificate"]))
            connection = http.client.HTTPConnection(name, port)
            connection.sock = encrypted
            connection.request("GET", "/health", headers={"Connection": "close"})
            response = connection.getresponse()
            status["status"] = response.status
            report: Any = json.loads(response.read(RESPONSE_MAX_BYTES))
            status["health"] = str(report.get("status", ""))
    except (OSError, http.client.HTTPException) as error:
        status["error"] = str(error)
    except (ValueError, AttributeError):
        status["health"] = ""
    return status


def certificate_in(file: Path) -> bytes | None:
    """Return the first certificate of a file in PEM, in DER; None if there is none."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    found = FIRST_CERTIFICATE.search(text)
    return ssl.PEM_cert_to_DER_cert(found[0]) if found else None


def certificate_expiry(file: Path) -> int:
    """Return when the certificate in a file expires, as Unix time; 0 if it cannot be read."""
    certificate = parse(file.read_text(errors="replace")) if file.is_file() else None
    return certificate.expires if certificate else 0


def nginx_error(main: str) -> str:
    """Return the error message of `nginx -t`; empty if the configuration is valid."""
    try:
        tested = subprocess.run(
            ["nginx", "-t", "-q", "-c", main],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if tested.returncode == 0 else tested.stderr.strip() or "nginx -t fails"


def is_loaded(site: Site) -> bool:
    """Whether the files of the role have not changed since nginx has loaded them."""
    try:
        loaded = Path(site["proxy_stamp"]).stat().st_mtime
        files = (Path(site["proxy_site"]), Path(site["proxy_main"]))
        return all(file.stat().st_mtime <= loaded for file in files)
    except OSError:
        return False


# --- stream, disks and host ---------------------------------------------------------------


def metrics_of(endpoint: str, token: str) -> dict[str, int]:
    """Read the metrics of an instance that have no labels and are known."""
    request = urllib.request.Request(
        f"http://{endpoint}/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            text = response.read(RESPONSE_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    values = {name: float(value) for name, value in METRIC.findall(text)}
    return {name: int(value) for name, value in values.items() if math.isfinite(value)}


def stream_metrics(site: Site, instances: list[InstanceStatus]) -> dict[str, int]:
    """Return the metrics of the first instance that answers; those of the stream are the same on all."""
    token = setting(Path(site["configuration"], "current/backend.env"), "METRICS_TOKEN")
    for instance in instances:
        if instance["health"]:
            metrics = metrics_of(f"{site['address']}:{instance['port']}", token)
            if metrics:
                return metrics
    return {}


def disk_statuses() -> list[DiskStatus]:
    """Return the state of each file system that the deployment writes to, once."""
    disks: dict[int, DiskStatus] = {}
    for path in filter(os.path.isdir, DISKS):
        device, space = Path(path).stat().st_dev, os.statvfs(path)
        disks.setdefault(
            device,
            {
                "path": path,
                "total": space.f_blocks * space.f_frsize,
                "free": space.f_bavail * space.f_frsize,
                # Some file systems have no fixed number of inodes.
                "free_inodes": space.f_favail / space.f_files if space.f_files else 1.0,
            },
        )
    return list(disks.values())


def has_address(address: str) -> bool:
    """Whether this host has an address."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def clock_synchronized() -> bool | None:
    """Whether the kernel reports the clock as synchronized; None if the host does not say."""
    answer = output_of("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    return {"yes": True, "no": False}.get(answer)


def site_status(site: Site) -> SiteStatus:
    """Read the state of the site on this host."""
    configuration = Path(site["configuration"])
    current, previous = (linked_release(configuration, name) for name in ("current", "previous"))
    instances = instance_statuses(site)
    metrics = stream_metrics(site, instances)
    trials = Path(site["trial_directory"]).glob(f"{site['unit']}@*.service")
    return {
        "instances": instances,
        "units": unit_statuses([site["target"], "nginx.service", "docker.service"]),
        "current": current,
        "previous": previous,
        "missing_images": missing_images(site, [current, previous]),
        "differing_files": differing_files(site, current) if current else [],
        "trials": sorted(trial.name for trial in trials),
        "lock": read(Path(site["lock"])),
        "maintenance": maintenance_since(Path(site["maintenance"])),
        "proxy": ask_proxy(site),
        "nginx_error": nginx_error(site["nginx"]),
        "nginx_loaded": is_loaded(site),
        "certificate_expires": certificate_expiry(Path(site["certificate"])),
        "lag": metrics.get("ag_ui_group_lag"),
        "pending": metrics.get("ag_ui_group_pending"),
        "dead_letters": metrics.get("ag_ui_dead_letters_open"),
        "disks": disk_statuses(),
        "has_address": has_address(site["address"]),
        "clock_synchronized": clock_synchronized(),
        "reboot_required": REBOOT_REQUIRED.exists(),
    }
