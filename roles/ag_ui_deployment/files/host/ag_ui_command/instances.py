"""`ag-ui logs`, `drain`, `start`, `recover` and `exec`: work with single instances."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (
    running_instances,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_instance_control import (
    InstanceControl,
    get_json,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import (
    container_of,
    unit_of,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
    image_of,
)

from ag_ui_command.errors import REFUSED, CommandError
from ag_ui_command.host import require_success, require_unlocked, run, unit_for
from ag_ui_command.output import say

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site


def control_of(site: Site, port: int) -> InstanceControl:
    """Return the control of an instance.

    Raises:
        CommandError: There is no such instance, or it was never deployed.
    """
    directories = Path(site["unit_directory"]), Path(site["trial_directory"])
    control = InstanceControl(unit_for(site, port), *directories)
    if not control.permanent.exists():
        raise CommandError(f"{control.unit} is not installed. Deploy to this host.", REFUSED)
    return control


def is_ready(site: Site, port: int) -> bool:
    """Whether an instance takes requests."""
    url = f"http://{site['address']}:{port}/health/ready"
    return get_json(url)[0] == http.client.OK


def show_logs(site: Site, port: int | None, *, follow: bool, since: str, lines: int) -> None:
    """Replace this process by one that prints the log of an instance, or of all."""
    unit = unit_for(site, port) if port else f"{site['unit']}@*.service"
    command = ["journalctl", f"--unit={unit}", "--no-hostname", f"--lines={lines}"]
    command += ["--follow"] if follow else ["--no-pager"]
    if since:
        # All of that time, not only its last lines.
        command = [
            *(word for word in command if not word.startswith("--lines")),
            f"--since={since}",
        ]
    replace_process(command)


def replace_process(command: list[str]) -> None:
    """Run a program instead of this one, so that signals and exit status are its own.

    Raises:
        CommandError: It is not installed.
    """
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be run: {error}") from error


def drain(site: Site, port: int, *, force: bool) -> None:
    """Stop an instance, and keep it out over reboots until it is started again.

    Raises:
        CommandError: No other instance would be left, or a deployment is going on.
    """
    control = control_of(site, port)
    require_unlocked(site)
    others = [other for other in site["ports"] if other != port]
    if not force and not any(is_ready(site, other) for other in others):
        raise CommandError(
            f"No other instance of this host is ready: without {port} requests would fail. Start another one with "
            "ag-ui start PORT first, or repeat this with --force.",
            REFUSED,
        )
    say(f"Stopping instance {port}: open requests finish, streams continue on another instance.")
    # First, so that a reboot meanwhile does not start it.
    require_success("systemctl", "disable", "--quiet", control.unit)
    require_success("systemctl", "stop", control.unit)
    say(f"Instance {port} is stopped, and stays out until: ag-ui start {port}")


def start(site: Site, port: int) -> None:
    """Start an instance that was drained or stopped.

    Raises:
        CommandError: It does not become ready and healthy, or a deployment is going on.
    """
    control = control_of(site, port)
    require_unlocked(site)
    require_success("systemctl", "enable", "--quiet", control.unit)
    started = run("systemctl", "start", control.unit)
    reason = "it does not start" if started.returncode else ""
    reason = reason or control.wait_until_healthy(site["healthy_within"])
    if reason:
        raise CommandError(
            f"Instance {port} is not healthy: {reason}\n"
            f"Its last error: {control.instance.last_error() or 'it logged none'}\n"
            f"It stays enabled, and systemd tries again. For details: ag-ui logs {port}"
        )
    say(f"Instance {port} is ready and healthy.")


def recover(site: Site, port: int) -> None:
    """Start the last permanent release of an instance that has failed.

    The lock is not asked, because a deployment may have been killed. The port may be that of a new instance.
    """
    directories = Path(site["unit_directory"]), Path(site["trial_directory"])
    result = InstanceControl(unit_of(site, port), *directories).recover()
    say(f"Instance {port}: {result or 'It has not failed.'}")


def run_backend_command(site: Site, arguments: list[str]) -> None:
    """Replace this process by a command of the backend, in a running instance or else in a new container.

    Raises:
        CommandError: No instance runs, and the host has no release.
    """
    running = running_instances()
    names = [container_of(site, port) for port in site["ports"]]
    container = next((name for name in names if name in running), None)
    where = ["exec", "--interactive", container] if container else _new_container(site)
    replace_process(["docker", *where, "python", "-m", "src.cli", *arguments])


def _new_container(site: Site) -> list[str]:
    """Return the arguments of docker that run a command of the current release."""
    release = Path(site["configuration"], "current")
    image, settings = image_of(release), release / "backend.env"
    if not image or not settings.exists():
        raise CommandError("No instance runs, and this host has no release. Deploy to it.", REFUSED)
    return [
        *("run", "--rm", "--interactive", "--pull=never", "--network=host", "--read-only"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
        # The group that may read the settings.
        f"--group-add={settings.stat().st_gid}",
        f"--volume={settings}:/app/.env:ro",
        image,
    ]
