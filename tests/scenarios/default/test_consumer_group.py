"""The consumer group stores every event in PostgreSQL even if its readers fail."""

from __future__ import annotations

import time
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
import redis as redis_py

from tests.scenarios.support.http import EventStream
from tests.scenarios.support.jobs import Job, SteadyPublisher
from tests.scenarios.support.site import GROUP
from tests.shield import STREAM
from tests.shield.faults import FLAWS, malformed
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Account, Site
    from tests.shield import Publisher

MANY = 5000
STORED_WITHIN = 60.0
CLAIM_IDLE_DEFAULT = 30.0


def stored_exactly(site: Site, job: Job, ids: list[str], *, within: float = STORED_WITHIN) -> None:
    """Wait until the job's rows have exactly these stream ids: none lost, none duplicated."""
    eventually(lambda: len(site.stored(job.id)) >= len(ids), "every event stored", within=within)
    assert site.stored(job.id) == ids


def pending_of(site: Site, port: int) -> int:
    """Return how many entries the instance has read and not acknowledged."""
    return site.pending().get(f"{site.dev.inventory_name}-{port}", 0)


def keep_publishing_until(publisher: Publisher, job: Job, site: Site, port: int) -> list[str]:
    """Publish batches until the instance has pending entries; return the ids of all batches."""
    ids: list[str] = []
    deadline = time.monotonic() + 20
    while not pending_of(site, port):
        assert time.monotonic() < deadline, f"instance {port} reads nothing"
        ids += publisher.publish_all([job.chunk() for _ in range(20)])
    return ids


def test_every_instance_is_a_consumer(site: Site) -> None:
    assert site.group()["name"] == GROUP
    assert set(site.pending()) == site.consumers
    assert len(site.consumers) == 2


def test_thousands_of_events_are_stored_once(
    site: Site, publisher: Publisher, figures: Figures
) -> None:
    job = Job()
    ids: list[str] = []
    watch = Stopwatch()
    for events in (job.all_events(MANY)[at : at + 500] for at in range(0, MANY, 500)):
        ids += publisher.publish_all(events)
    site.wait_until_caught_up(within=STORED_WITHIN)
    figures.record("events_stored_per_second", MANY / watch.seconds, "1/s")
    assert len(site.stored(job.id)) == MANY
    stored_exactly(site, job, ids)


def test_events_published_while_no_instance_runs_are_stored(
    site: Site, publisher: Publisher
) -> None:
    job = Job()
    with site.dev.stopped("ag-ui.target"):
        site.wait_until_gone()
        ids = publisher.publish_all(job.all_events(200))
    site.wait_until_healthy()
    stored_exactly(site, job, ids)
    site.wait_until_caught_up()


def test_restarted_instance_stores_its_pending_batch(
    site: Site, user: Account, publisher: Publisher
) -> None:
    """The instance dies with a batch pending, restarts and stores it."""
    job, port = Job(owner=user.id), site.ports[0]
    ids = [publisher.publish(job.started())]
    with EventStream(site.instance(site.ports[1]), "/events", user.token) as stream:
        stream.wait_until_subscribed()
        with site.database_locked():
            ids += keep_publishing_until(publisher, job, site, port)
            site.kill(port)
        ids += publisher.publish_all([*(job.chunk() for _ in range(200)), job.complete()])
        site.wait_until_healthy()
        stored_exactly(site, job, ids)
        site.wait_until_caught_up()
        stream.wait_for_id(ids[-1])
        mine = [it for it in stream.ids if it in set(ids)]
        assert mine == ids[len(ids) - len(mine) :]


def test_pending_entries_of_a_dead_instance_are_claimed(
    site: Site, publisher: Publisher, figures: Figures
) -> None:
    """The instance dies with a batch pending and stays down: the other instance claims it."""
    job, port = Job(), site.ports[0]
    unit = site.unit(port)
    idle = float(site.settings.get("CONSUMER_CLAIM_IDLE_SECONDS", CLAIM_IDLE_DEFAULT))
    ids = [publisher.publish(job.started())]
    try:
        with site.database_locked():
            ids += keep_publishing_until(publisher, job, site, port)
            site.kill(port, and_then=f"systemctl stop {unit}")
            assert pending_of(site, port) > 0
            died = Stopwatch()
        ids += publisher.publish_all([*(job.chunk() for _ in range(50)), job.complete()])
        stored_exactly(site, job, ids, within=2 * idle + 20)
        figures.record("pending_of_the_dead_claimed_after", died.seconds, "s", f"idle {idle:g} s")
        site.wait_until_caught_up()
        assert not site.dev.is_active(unit)
    finally:
        site.dev.systemctl("start", unit)
    site.wait_until_healthy()
    assert set(site.pending()) == site.consumers


def test_kills_of_both_instances_lose_no_event(
    site: Site, user: Account, publisher: Publisher
) -> None:
    """Both instances die in turn while events are published; a client resumes through the proxy."""
    job = Job(owner=user.id)
    seen: list[str] = []
    cursor: str | None = None
    with SteadyPublisher(publisher, job, per_second=200) as steady:
        eventually(lambda: site.stored(job.id), "the first event stored", within=60)
        for port in site.ports:
            with EventStream(
                site.instance(port), f"/api/jobs/{job.id}/events", user.token, cursor
            ) as stream:
                stream.wait(lambda it: len(it.ids) > 20, "twenty events", within=60)
                site.kill(port)
                stream.wait(lambda it: it.ended, "the end of the connection", within=60)
                seen += stream.ids
                cursor = stream.cursor
            eventually(partial(site.is_ready, port), "ready again", within=120)
    with EventStream(site.proxy, f"/api/jobs/{job.id}/events", user.token, cursor) as stream:
        stream.wait(lambda it: it.ended, "the end of the run", within=60)
        seen += stream.ids
    site.wait_until_healthy()
    stored_exactly(site, job, steady.ids)
    assert seen == steady.ids[steady.ids.index(seen[0]) :]


@pytest.mark.parametrize("flaw", FLAWS)
def test_malformed_entry_becomes_a_dead_letter(
    site: Site, admin: Account, publisher: Publisher, flaw: str
) -> None:
    job = Job()
    before = publisher.publish(job.started())
    with EventStream(site.proxy, "/events", admin.token) as stream:
        stream.wait_until_subscribed()
        poison = publisher.publish(malformed(Random(flaw), job.started().at, flaw))
        after = publisher.publish(job.complete())
        stream.wait_for_id(after)
    stored_exactly(site, job, [before, after])
    assert site.dead_letter(poison)
    site.wait_until_caught_up()


def test_destroying_the_group_loses_no_event(site: Site, publisher: Publisher) -> None:
    job = Job()
    with SteadyPublisher(publisher, job, per_second=200) as steady:
        eventually(lambda: len(steady.ids) > 200, "two hundred events", within=60)
        site.redis.xgroup_destroy(STREAM, GROUP)
        seen = len(steady.ids)
        eventually(lambda: len(steady.ids) > seen + 200, "two hundred more", within=60)
    stored_exactly(site, job, steady.ids)
    eventually(
        lambda: set(site.pending()) == site.consumers,
        "both instances in the group",
        within=60,
        ignoring=(redis_py.ResponseError,),
    )
    site.wait_until_caught_up()


def test_events_published_while_no_group_exists_are_stored(
    site: Site, publisher: Publisher
) -> None:
    """No group exists for a while: entries published meanwhile must not be skipped."""
    job = Job()
    with site.dev.stopped("ag-ui.target"):
        site.wait_until_gone()
        ids = publisher.publish_all([job.started(), *(job.chunk() for _ in range(24))])
        site.redis.xgroup_destroy(STREAM, GROUP)
        ids += publisher.publish_all([*(job.chunk() for _ in range(24)), job.complete()])
    site.wait_until_healthy()
    stored_exactly(site, job, ids)


def test_duplicate_of_the_producer_is_stored_and_shown_once(
    site: Site, user: Account, publisher: Publisher
) -> None:
    """One event id with two stream ids: two rows, shown to the client once."""
    job = Job(owner=user.id)
    started, chunk, complete = job.started(), job.chunk(), job.complete()
    with EventStream(site.proxy, "/events", user.token) as stream:
        stream.wait_until_subscribed()
        ids = publisher.publish_all([started, chunk, chunk, complete, complete])
        stream.wait_for_id(ids[3])
        kinds = [event["type"] for event in stream.events if job.id in str(event["metadata"])]
        assert kinds.count("RUN_FINISHED") == 1
        assert kinds.count("RUN_STARTED") == 1
    site.wait_until_caught_up()
