"""Deployments that a reboot of the host or the loss of the controller interrupts, and two at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.deployment import RunningDeployment, deploy
from tests.scenarios.support.releases import (
    BACK_WITHIN,
    check_succeeded,
    reboot,
    releases,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.site import Site

REACHED_WITHIN = 300.0
# Keeps an interrupted release different from the one that runs.
CHANGED = {"ag_ui_log_level": "WARNING", "ag_ui_watch_time": 30}


def running(site: Site) -> dict[str, str]:
    """Return the release of each running instance; nothing if a container was removed meanwhile."""
    try:
        return releases(site)
    except AssertionError:
        return {}


def switched(site: Site, former: str) -> int:
    """Return how many running instances have another release than the former one."""
    return len([release for release in running(site).values() if release != former])


@pytest.mark.parametrize("instances", [1, 2])
def test_reboot_in_mid_release_starts_the_former_release(
    site: Site, inventory: str, instances: int
) -> None:
    [former] = set(releases(site).values())
    with RunningDeployment(inventory, CHANGED) as deployment:
        eventually(
            lambda: switched(site, former) >= instances,
            f"{instances} instances with the release under trial",
            within=REACHED_WITHIN,
        )
        assert deployment.is_running
        reboot(site)
    assert set(releases(site).values()) == {former}


def test_instance_that_fails_after_the_deployment_was_killed_runs_the_former_release(
    site: Site, inventory: str
) -> None:
    [former] = set(releases(site).values())
    first = site.ports[0]
    with RunningDeployment(inventory, CHANGED) as deployment:
        eventually(
            lambda: switched(site, former) == 1 and site.is_ready(first),
            "an instance with the release under trial",
            within=REACHED_WITHIN,
        )
        deployment.kill()
    site.kill(first)
    eventually(
        lambda: running(site).get(site.container(first)) == former and site.is_ready(first),
        "the former release",
        within=BACK_WITHIN,
    )
    assert set(releases(site).values()) == {former}
    assert site.dev.run("ls", "/run/systemd/system.control").strip() == ""
    # It also takes over the lock of the killed one.
    check_succeeded(deploy(inventory))
    assert set(releases(site).values()) == {former}


def test_killed_deployment_is_completed_by_the_next(site: Site, inventory: str) -> None:
    [former] = set(releases(site).values())
    with RunningDeployment(inventory, CHANGED) as deployment:
        eventually(lambda: switched(site, former) >= 1, "a release", within=REACHED_WITHIN)
        # The lock names who deploys.
        second = deploy(inventory)
        assert second.code != 0
        assert "has the lock of" in second.message
        deployment.kill()
    # The controller knows that the process has ended, and takes over its lock.
    check_succeeded(deploy(inventory))
    assert set(releases(site).values()) == {former}
    assert site.dev.run("ls", "/run/systemd/system.control").strip() == ""
    done = deploy(inventory)
    check_succeeded(done)
    assert sum(done.changes.values()) == 0, done.output
