"""The primary of Redis dies under load, and Sentinels promote its replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from tests.scenarios.cluster.cluster import PROMOTED_WITHIN
from tests.scenarios.support.event_source import position
from tests.scenarios.support.experiment import EVENTS_FOR_EVERY_VIEW
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.scenarios.cluster.cluster import ClusterSite
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.figures import Figures

RECOVERED_WITHIN = 60.0
"""Generous for a busy machine. The goal is 15 s; the figure shows what it took."""


def test_failover_loses_no_event(
    hosts: list[ClusterSite],
    site: ClusterSite,
    under_load: ExperimentFactory,
    figures: Figures,
) -> None:
    former = site.redis_port()
    unit = f"redis-server@{former}.service"
    with under_load("failover_of_redis", restarts={"redis"}) as experiment:
        site.datastores.systemctl("kill", "--signal=KILL", unit)
        site.datastores.systemctl("stop", unit)
        killed = Stopwatch()
        eventually(
            lambda: site.redis_port() != former,
            "a promoted replica",
            within=PROMOTED_WITHIN,
            ignoring=(RedisError,),
        )
        promoted = Stopwatch()
        figures.record("redis_promoted_after", killed.seconds, "s")
        experiment.wait_until_received(
            len(experiment.load.log) + EVENTS_FOR_EVERY_VIEW, within=RECOVERED_WITHIN
        )
        newest, job = position(experiment.load.log[-1].stream_id), experiment.load.longest.id
        eventually(
            lambda: position((site.stored(job) or ["0-0"])[-1]) > newest,
            "events of the new primary stored",
            within=RECOVERED_WITHIN,
        )
        for host in hosts:
            host.wait_until_healthy(within=RECOVERED_WITHIN)
        figures.record("redis_recovered_after_promotion", promoted.seconds, "s", "goal: 15 s")
        # The former primary follows the new one, and the clients stay there.
        site.datastores.systemctl("start", unit)
        site.wait_for_replica(former)
        assert site.redis_port() != former
        experiment.wait_for_events(3)
