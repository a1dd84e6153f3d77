"""`ag-ui rollback`: go back to a former release of this host, without the controller."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (
    running_instances,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_instance_control import (
    InstanceControl,
    watch,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_lock_file import (
    read,
    take,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (
    deployed_releases,
    linked_release,
    read_record,
    record_deployment,
    utc_now,
    write_record,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import (
    container_of,
    release_directory,
    unit_of,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
    image_of,
    missing_images,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_units import (
    instance_units,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.modules.ag_ui_nginx import (
    File,
    RejectedError,
    apply,
)

from ag_ui_command.errors import REFUSED, CommandError
from ag_ui_command.host import operator, require_success, require_unlocked
from ag_ui_command.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_lock_file import (
        Lock,
    )
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (
        Record,
    )
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site

RELOAD_SECONDS = 15.0
RUN_PREFIX = "ag-ui "
# SIGHUP: the connection of the operator is lost.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Release(NamedTuple):
    """A release on the host that can be started."""

    name: str
    directory: Path
    # Text of its unit.
    unit: str


def roll_back(site: Site, wanted: str) -> None:
    """Switch the instances to a former release one at a time; go back if one of them fails.

    Args:
        site: The site.
        wanted: The release; empty for the previous one.

    Raises:
        CommandError: The release cannot be started, or did not become and stay healthy.
    """
    with interruptible(), locked(site):
        configuration = Path(site["configuration"])
        former = linked_release(configuration, "current")
        release = chosen(site, wanted)
        started = utc_now()
        pending = pending_ports(site, release)
        if not pending and release.name == former:
            say(f"All instances run release {release.name} already.")
            return
        switch(site, release, pending, former)
        record(site, release, former, started)
        say(f"This host runs release {release.name} instead of {former or 'none'}.")


# --- what can be started ------------------------------------------------------------------


def chosen(site: Site, wanted: str) -> Release:
    """Return the release to go back to.

    Raises:
        CommandError: There is no such release, or it cannot be started on this host as it is.
    """
    configuration = Path(site["configuration"])
    deployed = deployed_releases(configuration)
    name = wanted or linked_release(configuration, "previous")
    if not name:
        raise CommandError("This host has no previous release to go back to.", REFUSED)
    if name not in deployed:
        raise CommandError(
            f"Release {name} was never deployed to this host, or is no longer there. It has "
            f"{', '.join(deployed) or 'none'}.",
            REFUSED,
        )
    directory = release_directory(site, name)
    if missing_images(site, [name]):
        raise CommandError(
            f"The image {image_of(directory)} of release {name} is no longer on this host. Choose another release, or "
            "deploy.",
            REFUSED,
        )
    unit = (directory / f"{site['unit']}@.service").read_text(encoding="utf-8")
    require_same_endpoints(site, directory, unit)
    return Release(name, directory, unit)


def require_same_endpoints(site: Site, directory: Path, unit: str) -> None:
    """Check that the release listens where the site does now, so that the proxies reach it.

    Raises:
        CommandError: It has other ports or another address.
    """
    ports = read_record(directory).get("ports") or site["ports"]
    if f"http://{site['address']}:%i/health/ready" in unit and sorted(ports) == sorted(
        site["ports"]
    ):
        return
    raise CommandError(
        f"Release {directory.name} has instances at other addresses or ports, which proxies of the group do not know. Go "
        f"back from the controller: ansible-playbook -i INVENTORY playbooks/rollback.yml -e ag_ui_release={directory.name}",
        REFUSED,
    )


def pending_ports(site: Site, release: Release) -> list[int]:
    """Return the ports of instances that do not run the release, or would not after a restart."""
    files = instance_units(Path(site["unit_directory"]), Path(site["trial_directory"]))
    running = running_instances()
    return [
        port
        for port in site["ports"]
        if running.get(container_of(site, port)) != release.name
        or files.get(unit_of(site, port), {"release": ""})["release"] != release.name
    ]


# --- switching ----------------------------------------------------------------------------


def switch(site: Site, release: Release, ports: list[int], former: str) -> None:
    """Switch instances and proxy to the release, or leave both as they were.

    Raises:
        CommandError: The release failed, and the former one runs again.
    """
    directories = Path(site["unit_directory"]), Path(site["trial_directory"])
    controls = [InstanceControl(unit_of(site, port), *directories) for port in ports]
    tried: list[InstanceControl] = []
    try:
        start_trials(site, release, controls, tried)
        install_proxy(site, release)
    except (CommandError, OSError, KeyboardInterrupt) as error:
        left = []
        for control in reversed(tried):
            say(f"Instance {control.port}: going back.")
            result = control.roll_back()
            if result and "previous release again" not in result:
                left.append(f"\nInstance {control.port}: {result}")
        raise CommandError(
            f"{error}\nRelease {release.name} was undone. This host runs release {former or 'none'}."
            + "".join(left)
        ) from error
    ignore_signals()
    for control in controls:
        control.commit(release.unit)
    units = [unit_of(site, port) for port in site["ports"]]
    require_success("systemctl", "enable", "--quiet", site["target"], *units)


def start_trials(
    site: Site, release: Release, controls: list[InstanceControl], tried: list[InstanceControl]
) -> None:
    """Start the release on trial on one instance after the other, and watch them.

    Args:
        site: The site.
        release: The release.
        controls: The instances.
        tried: Gets the instances that were changed, also if one of them fails.

    Raises:
        CommandError: An instance did not become or stay healthy.
    """
    invocations: dict[InstanceControl, str] = {}
    for control in controls:
        say(f"Instance {control.port}: switching to release {release.name}.")
        tried.append(control)
        reason = control.start_trial(release.unit, site["healthy_within"])
        if reason:
            last_error = control.instance.last_error() or "it logged none"
            raise CommandError(
                f"{control.unit} did not become healthy: {reason}\nIts last error: {last_error}"
            )
        invocations[control] = control.instance.invocation()
    say(f"Watching the instances for {site['watch_seconds']} s.")
    failure = watch(invocations, site["watch_seconds"])
    if failure:
        raise CommandError(failure)


def install_proxy(site: Site, release: Release) -> None:
    """Install and load the files of nginx of the release, if it has some and they differ.

    Raises:
        CommandError: nginx rejects them; the old ones are in place.
    """
    paths = {
        Path(site["proxy_site"]): release.directory / "nginx-site.conf",
        Path(site["proxy_main"]): release.directory / "nginx-main.conf",
    }
    files = [
        File(path, original.read_bytes(), 0o644)
        for path, original in paths.items()
        if original.is_file()
    ]
    changed = [file for file in files if not file.is_installed()]
    if not changed:
        return
    stamp = Path(site["proxy_stamp"])
    was_loaded = stamp.exists()
    stamp.unlink(missing_ok=True)
    try:
        apply(Path(site["nginx"]), changed, [], {}, RELOAD_SECONDS)
    except RejectedError as rejection:
        # The old files are in place again, and nginx runs with them.
        if was_loaded:
            stamp.touch()
        raise CommandError(f"nginx rejects the files of the release: {rejection}") from rejection
    stamp.touch()


def record(site: Site, release: Release, former: str, started: str) -> None:
    """Record which release runs, and that the former one was left."""
    configuration = Path(site["configuration"])
    known: Record = {
        "release": release.name,
        "image": image_of(release.directory),
        "address": site["address"],
        "ports": site["ports"],
        "by": operator(),
        "started": started,
    }
    record_deployment(configuration, known)
    left = release_directory(site, former)
    if former and former != release.name and left.is_dir():
        write_record(left, {**read_record(left), "outcome": "rolled_back"})


# --- one at a time, and never half ---------------------------------------------------------


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Hold the lock of the host.

    Raises:
        CommandError: Another run has it.
    """
    path, process = Path(site["lock"]), str(os.getpid())
    own: Lock = {
        "holder": operator(),
        # Not the form of a playbook's run, whose controller may have the same name.
        "run": f"{RUN_PREFIX}{process} {start_time(process)}",
        "purpose": "rollback",
        "since": utc_now(),
    }
    existing = (read(path) or {}).get("run", "")
    if take(path, own, existing if has_ended(existing) else "") is not None:
        require_unlocked(site)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def start_time(process: str) -> str:
    """Return when a process was started, in ticks since boot; empty if there is none."""
    try:
        text = Path("/proc", process, "stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def has_ended(run: str) -> bool:
    """Whether the run that took a lock was this command, and has ended."""
    process, _, started = run.removeprefix(RUN_PREFIX).partition(" ")
    return run.startswith(RUN_PREFIX) and start_time(process) != started


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn signals that end the process into an exception, so that what was begun is undone."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # Undoing it is not interrupted again.
        ignore_signals()
        raise KeyboardInterrupt(f"It was interrupted by {signal.Signals(number).name}.")

    before = {number: signal.signal(number, interrupt) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore signals that end the process, until the end of `interruptible`."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
