"""Instances that die, hang, or stop with docker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.scenarios.resilience.faults import standing_still
from tests.scenarios.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.site import Site
    from tests.scenarios.support.trial import UnderLoad

CLIENTS = 50
STANDSTILL = 60.0


def pid_of(site: Site, port: int) -> str:
    return str(site.inspect(site.container(port))["State"]["Pid"])


def test_killed_instance_loses_no_event(site: Site, under_load: UnderLoad) -> None:
    port = site.ports[0]
    with under_load(
        "kill_of_an_instance", restarts={f"instance {port}"}, cuts_streams=True
    ) as trial:
        site.dev.run("kill", "-9", pid_of(site, port))
        eventually(lambda: trial.breaks() > 0, "clients that lost their stream", within=10)


def test_clients_of_a_suspended_instance_receive_everything_later(
    site: Site, under_load: UnderLoad
) -> None:
    """Its clients get no signal; they wait, and receive everything when it continues."""
    with (
        under_load("standstill_of_an_instance", cuts_streams=True) as trial,
        standing_still(site.dev, pid_of(site, site.ports[1])),
    ):
        began = time.monotonic()
        trial.wait_for_events(5)
        stuck = len(trial.behind(len(trial.load.log) - 200))
        assert 0 < stuck < CLIENTS, "the other instance serves its clients"
        time.sleep(began + STANDSTILL - time.monotonic())


def test_restart_of_docker_loses_no_event(site: Site, under_load: UnderLoad) -> None:
    instances = {f"instance {port}" for port in site.ports}
    with under_load("restart_of_docker", restarts={"docker", *instances}, cuts_streams=True):
        site.dev.systemctl("restart", "docker.service")
