"""A long run with clients that come and go: no event is lost and no memory leaks."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING, Final

from tests.scenarios.support.experiment import ClientCounts
from tests.scenarios.support.load import warm_up
from tests.scenarios.support.process_metrics import memory
from tests.support.waiting import Stopwatch

if TYPE_CHECKING:
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Site

SECONDS: Final = float(os.environ.get("AG_UI_SOAK_SECONDS", "600"))
EVENTS_PER_SECOND: Final = 100.0
CLIENTS: Final = ClientCounts(all=80, users=10, job=0, mean_connected=30, mean_disconnected=5)
"""A hundred clients, each connected for about half a minute.

Every other one returns as a new client.
"""
BETWEEN_SAMPLES: Final = 10.0
GROWTH_LIMIT: Final = 8.0
"""MiB between the second fifth of the run, after warm-up, and the last fifth."""


def test_soak_loses_no_event_and_leaks_no_memory(
    site: Site, under_load: ExperimentFactory, figures: Figures
) -> None:
    warm_up(site, under_load.owners)
    samples: dict[int, list[float]] = {port: [] for port in site.ports}
    with under_load(
        "soak", cuts_streams=True, per_second=EVENTS_PER_SECOND, clients=CLIENTS
    ) as experiment:
        watch = Stopwatch()
        while watch.seconds < SECONDS:
            experiment.wait_for_events(BETWEEN_SAMPLES)
            for port, size in memory(site).items():
                samples[port].append(size)
        growth = [record_growth(figures, port, sizes) for port, sizes in samples.items()]
    visits = sum(result.stats["connections"] for result in experiment.results.values())
    figures.record("soak_connections", visits, "", f"{len(experiment.load.log)} events")
    assert max(growth) <= GROWTH_LIMIT, samples


def record_growth(figures: Figures, port: int, sizes: list[float]) -> float:
    """Record the growth of the average from the second fifth of the run to the last."""
    fifth = max(1, len(sizes) // 5)
    warm = statistics.mean(sizes[fifth : 2 * fifth])
    end = statistics.mean(sizes[-fifth:])
    remark = f"{warm:.1f} to {end:.1f} MiB, minimum {min(sizes):.0f}, maximum {max(sizes):.0f}"
    figures.record(f"soak_memory_growth_{port}", end - warm, "MiB", remark)
    return end - warm
