"""The network to the datastores' host: cut, or slow and lossy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.scenarios.resilience.faults import LOSS, network_cut, network_slow_and_lossy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Site

CUT = 30.0
DEGRADATION = 20.0


def test_network_outage_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    with under_load("network_cut"), network_cut(site):
        began = time.monotonic()
        eventually(lambda: site.health()["status"] == "degraded", "degraded", within=10)
        time.sleep(began + CUT - time.monotonic())


def test_slow_and_lossy_network_loses_no_event(
    site: Site, under_load: ExperimentFactory, figures: Figures
) -> None:
    with under_load("slow_and_lossy_network") as experiment, network_slow_and_lossy(site) as how:
        figures.record("packets_lost_of_the_lossy_network", 100 * LOSS, "%", how)
        experiment.wait_for_events(DEGRADATION)
