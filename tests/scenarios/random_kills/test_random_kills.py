"""Deployments that are killed at random points, under requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scenarios.support.deployment import RunningDeployment, deploy
from tests.scenarios.support.releases import (
    check_second_run_changes_nothing,
    check_succeeded,
    releases,
)
from tests.scenarios.support.request_load import RequestLoad
from tests.support.waiting import Stopwatch

if TYPE_CHECKING:
    from random import Random

    from tests.scenarios.support.site import Account, Site

KILLS = 20


def test_deployments_killed_at_random_points_are_healed_by_the_next(
    site: Site, inventory: str, admin: Account, shield_rng: Random
) -> None:
    [former] = set(releases(site).values())
    levels = ["WARNING", "DEBUG"]
    with RequestLoad(site.proxy, "/auth/me", admin.token) as load:
        clock = Stopwatch()
        check_succeeded(deploy(inventory, {"ag_ui_log_level": levels[1]}))
        whole = clock.seconds
        for number in range(KILLS):
            with RunningDeployment(
                inventory, {"ag_ui_log_level": levels[number % 2]}
            ) as deployment:
                deployment.wait(shield_rng.uniform(0, whole))
        check_succeeded(deploy(inventory))
    assert load.failed == []
    assert load.answered > 0
    assert set(releases(site).values()) == {former}
    assert site.dev.run("ls", "/run/systemd/system.control").strip() == ""
    check_second_run_changes_nothing(inventory, {})
