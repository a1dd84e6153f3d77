"""A host is lost under load, and comes back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tests.scenarios.cluster.cluster import common_proxy, move_address
from tests.scenarios.support.event_source import position
from tests.scenarios.support.http import EventStream, request
from tests.scenarios.support.site import GROUP
from tests.shield import STREAM
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.scenarios.cluster.cluster import ClusterSite
    from tests.scenarios.support.experiment import Experiment, ExperimentFactory
    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Account

STREAMS = 6
"""Streams through the proxy of the host that stays; some are of instances of the other."""
ENDED_WITHIN = 120.0
"""Seconds until the proxy ends streams of a lost host, after a minute without keep-alives."""
PENDING_WITHIN = 30.0
TAKEN_OVER_WITHIN = 90.0


def open_streams(
    stack: ExitStack, site: ClusterSite, token: str, experiment: Experiment
) -> list[EventStream]:
    streams = [
        stack.enter_context(EventStream(site.proxy, "/events", token)) for _ in range(STREAMS)
    ]
    wait_for_new_events(streams, experiment)
    return streams


def wait_for_new_events(streams: list[EventStream], experiment: Experiment) -> None:
    """Wait until each stream has ended, or has the events that were published so far."""
    newest = position(experiment.load.log[-1].stream_id)
    eventually(
        lambda: all(it.ended or position(it.cursor or "0-0") >= newest for it in streams),
        "no stream that is open and silent",
        within=ENDED_WITHIN,
        every=1.0,
    )


def test_loss_of_a_host_loses_no_event(
    site: ClusterSite,
    other: ClusterSite,
    admin: Account,
    under_load: ExperimentFactory,
    figures: Figures,
) -> None:
    """The lost host has the common address, streams of both proxies and entries to be stored."""
    move_address(other, [site])
    with (
        under_load("loss_of_a_host", cuts_streams=True) as experiment,
        ExitStack() as stack,
    ):
        streams = open_streams(stack, site, admin.token, experiment)
        with site.database_locked():
            eventually(
                lambda: site.pending().get(other.consumer, 0) > 0,
                "entries that the host has read and not stored",
                within=PENDING_WITHIN,
            )
            other.lose()
            lost = Stopwatch()
        eventually(site.has_address, "the common address at the other host", within=30)
        figures.record("address_moved_after", lost.seconds, "s")
        eventually(
            lambda: site.pending().get(other.consumer, 0) == 0,
            "the entries of the lost host taken over",
            within=TAKEN_OVER_WITHIN,
            every=0.5,
        )
        figures.record("entries_taken_over_after", lost.seconds, "s")
        experiment.wait_until_received(len(experiment.load.log), within=ENDED_WITHIN)
        figures.record("all_clients_served_by_the_other_host_after", lost.seconds, "s")
        assert request(common_proxy([site]), "GET", "/health/ready").status == 200
        wait_for_new_events(streams, experiment)
        ended = [it for it in streams if it.ended]
        assert 0 < len(ended) < STREAMS, "some were of the lost host, some of the other"
        returned = Stopwatch()
        other.boot()
        figures.record("host_back_after", returned.seconds, "s")
        assert site.has_address(), "the address stays, since each move cuts streams"
        # It takes part again: its instance reads entries, and the proxy of the other uses it.
        eventually(
            lambda: any(
                it["name"] == other.consumer and it["idle"] < 5000 for it in consumers(site)
            ),
            "its instance reads entries",
            within=PENDING_WITHIN,
        )


def consumers(site: ClusterSite) -> list[dict[str, Any]]:
    found: Any = site.redis.xinfo_consumers(STREAM, GROUP)
    return list(found)
