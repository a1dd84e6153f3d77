"""Instances that die, hang, or stop with docker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.scenarios.resilience.faults import suspended
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.site import Site

CLIENTS = 50
SUSPENSION = 60.0


def pid_of(site: Site, port: int) -> str:
    return str(site.inspect(site.container(port))["State"]["Pid"])


def test_killed_instance_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    port = site.ports[0]
    with under_load(
        "kill_of_an_instance", restarts={f"instance {port}"}, cuts_streams=True
    ) as experiment:
        site.dev.run("kill", "-9", pid_of(site, port))
        eventually(
            lambda: experiment.disconnects() > 0, "clients that lost their stream", within=10
        )


def test_clients_of_a_suspended_instance_receive_everything_later(
    site: Site, under_load: ExperimentFactory
) -> None:
    """Its clients get no signal; they wait, and receive everything when it continues."""
    with (
        under_load("standstill_of_an_instance", cuts_streams=True) as experiment,
        suspended(site.dev, pid_of(site, site.ports[1])),
    ):
        began = time.monotonic()
        experiment.wait_for_events(5)
        stuck = len(experiment.clients_behind(len(experiment.load.log) - 200))
        assert 0 < stuck < CLIENTS, "the other instance serves its clients"
        time.sleep(began + SUSPENSION - time.monotonic())


def test_restart_of_docker_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    instances = {f"instance {port}" for port in site.ports}
    with under_load("restart_of_docker", restarts={"docker", *instances}, cuts_streams=True):
        site.dev.systemctl("restart", "docker.service")
