"""Clients receive all of their events once, in order and without delay, and no others."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from roles.ag_ui_deployment.files.backend.tests.run_checker import (
    check_feed,
    check_frames,
    check_run,
    stream_position,
)
from tests.scenarios.support.http import EventStream, Refused, read_to_end, request
from tests.scenarios.support.jobs import Job, SteadyPublisher
from tests.shield import MAXLEN, ShieldEvent, any_job, crawl_job
from tests.shield.faults import enlarged, with_due_times, with_random_faults
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from random import Random

    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Account, Site
    from tests.shield import Publisher

CLIENTS = 20
EVENTS = 1000
CUTS = 30
LATENCY_SAMPLES = 50
LATENCY_LIMIT_MS = 100.0


def sources(events: list[dict[str, object]]) -> list[str]:
    """Return the event ids of the Shield events behind the AG-UI events, in order, each once."""
    received: dict[str, None] = {}
    for event in events:
        metadata = event.get("metadata")
        if isinstance(metadata, dict) and metadata.get("event_id"):
            received[str(metadata["event_id"])] = None
    return list(received)


def wait_until_known(site: Site, account: Account, job: Job) -> None:
    """Wait until the API returns the job."""
    eventually(
        lambda: (
            request(site.proxy, "GET", f"/api/jobs/{job.id}", token=account.token).status == 200
        ),
        "the job is known",
        within=60,
    )


def test_median_latency_is_within_the_limit(
    site: Site, user: Account, publisher: Publisher, figures: Figures
) -> None:
    """Measured from before the XADD to the last byte of the frame, through the proxy and TLS."""
    job = Job(owner=user.id)
    with EventStream(site.proxy, "/events", user.token) as stream:
        stream.wait_until_subscribed()
        stream.wait_for_id(publisher.publish(job.started()))
        samples = []
        for _ in range(LATENCY_SAMPLES):
            published = time.monotonic()
            stream_id = publisher.publish(job.chunk())
            samples.append(1000 * (stream.wait_for_id(stream_id).at - published))
        stream.wait_for_id(publisher.publish(job.complete()))
        check_feed(stream.events)
    median = statistics.median(samples)
    worst = max(samples)
    figures.record("latency_median_of_50", median, "ms", f"worst {worst:.1f} ms")
    assert median <= LATENCY_LIMIT_MS


def test_frames_are_not_buffered(site: Site, user: Account, publisher: Publisher) -> None:
    """Each event is published after the previous one has arrived, so buffering would hang."""
    job = Job(owner=user.id)
    with EventStream(site.proxy, "/events", user.token) as stream:
        assert stream.content_type == "text/event-stream"
        stream.wait_until_subscribed()
        for event in job.all_events(10):
            stream.wait_for_id(publisher.publish(event))
            assert stream.is_open
        assert any(frame.retry for frame in stream.frames)


def test_stream_of_a_job_ends_with_its_run(
    site: Site, user: Account, publisher: Publisher, shield_rng: Random
) -> None:
    events = crawl_job(shield_rng, user_id=user.id)
    job_id = events[0].job_id
    publisher.publish_all(events[:5])
    eventually(
        lambda: request(site.proxy, "GET", f"/api/jobs/{job_id}", token=user.token).status == 200,
        "the job is known",
        within=60,
    )
    with EventStream(site.proxy, f"/api/jobs/{job_id}/events", user.token) as stream:
        stream.wait_until_subscribed()
        publisher.publish_all(events[5:])
        read_to_end(stream, within=60)
        run = check_run(stream.events, complete=True)
    assert run.run_id == job_id
    assert run.outcome == "success"

    with EventStream(site.proxy, f"/api/jobs/{job_id}/events", user.token) as again:
        read_to_end(again, within=60)
        assert check_run(again.events, complete=True).outcome == "success"


def test_many_clients_receive_all_events_in_order(
    site: Site, user: Account, publisher: Publisher, figures: Figures
) -> None:
    job = Job(owner=user.id)
    events = job.all_events(EVENTS)
    publisher.publish(events[0])
    wait_until_known(site, user, job)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                EventStream(
                    site.proxy,
                    f"/api/jobs/{job.id}/events" if number % 2 else "/events",
                    user.token,
                )
            )
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.wait(
                lambda it: any(frame.data and job.id in frame.data for frame in it.frames),
                "the job as it stands",
                within=60,
            )
        published = time.monotonic()
        ids = publisher.publish_all(events[1:])
        for client in clients:
            client.wait_for_id(ids[-1], within=60)
        took = max(client.received[-1].at for client in clients) - published
        for client in clients:
            assert [it for it in client.ids if it in set(ids)] == ids
            own = [event for event in client.events if job.id in str(event.get("metadata"))]
            expected = {event.event_id for event in events[1:]}
            assert [it for it in sources(own) if it in expected] == [
                event.event_id for event in events[1:]
            ]
            check_run(own, complete=True)
    figures.record(
        "deliveries_per_second", CLIENTS * (EVENTS - 1) / took, "1/s", f"{CLIENTS} clients, TLS"
    )


def test_job_stream_resumes_at_another_instance_without_loss(
    site: Site, user: Account, publisher: Publisher, shield_rng: Random
) -> None:
    """Thirty cuts at random bytes, each resumed at the other instance."""
    job = Job(owner=user.id)
    path = f"/api/jobs/{job.id}/events"
    cursor: str | None = publisher.publish_all(Job().all_events(2))[-1]
    received: list[str] = []
    with SteadyPublisher(publisher, job, per_second=150) as steady:
        wait_until_known(site, user, job)
        for cut in range(CUTS):
            route = site.instances[cut % len(site.instances)]
            limit = shield_rng.randint(40, 12_000)
            with EventStream(route, path, user.token, cursor, limit) as stream:
                read_to_end(stream, within=60)
                check_run(stream.events)
                received += stream.ids
                cursor = stream.cursor
    last_route = site.instances[CUTS % len(site.instances)]
    with EventStream(last_route, path, user.token, cursor) as stream:
        read_to_end(stream, within=60)
        check_run(stream.events, complete=True)
        received += stream.ids
    assert received == steady.ids


def test_feed_resumes_at_another_instance_without_loss(
    site: Site, user: Account, publisher: Publisher, shield_rng: Random
) -> None:
    """Like the test above, for the feed with interleaved jobs."""
    jobs = [Job(owner=user.id) for _ in range(3)]
    order = [job for job in jobs for _ in range(80)]
    shield_rng.shuffle(order)
    with EventStream(site.instances[0], "/events", user.token) as stream:
        stream.wait_until_subscribed()
        first = publisher.publish(jobs[0].started())
        stream.wait_for_id(first)
        cursor: str | None = stream.cursor
    ids = publisher.publish_all([job.chunk() for job in order] + [job.complete() for job in jobs])
    received: list[str] = []
    for cut in range(10):
        route = site.instances[(cut + 1) % len(site.instances)]
        limit = shield_rng.randint(40, 12_000)
        with EventStream(route, "/events", user.token, cursor, limit) as stream:
            read_to_end(stream, within=60)
            check_feed(stream.events)
            received += stream.ids
            cursor = stream.cursor
    with EventStream(site.proxy, "/events", user.token, cursor) as stream:
        stream.wait(lambda it: it.cursor == ids[-1], "the last event", within=60)
        check_feed(stream.events)
        received += stream.ids
    assert [it for it in received if it in set(ids)] == ids
    assert received == sorted(set(received), key=stream_position)


def test_trimmed_entries_are_replayed_from_postgresql(
    site: Site, user: Account, publisher: Publisher
) -> None:
    """Entries that Redis has trimmed come from PostgreSQL."""
    job = Job(owner=user.id)
    ids = publisher.publish_all([job.started(), *(job.chunk() for _ in range(50))])
    site.wait_until_caught_up()
    site.redis.xtrim("shield:events", maxlen=0, approximate=False)
    ids += publisher.publish_all([job.chunk(), job.complete()])
    for instance in site.instances:
        with EventStream(instance, f"/api/jobs/{job.id}/events", user.token, ids[9]) as stream:
            read_to_end(stream, within=60)
            assert stream.ids == ids[10:]
            check_run(stream.events, complete=True)


def test_unknown_cursor_gives_a_gap_notice_and_a_valid_run(
    site: Site, user: Account, publisher: Publisher
) -> None:
    """The client is notified of the gap and receives the run in a valid form."""
    job = Job(owner=user.id)
    ids = publisher.publish_all(job.all_events(5))
    wait_until_known(site, user, job)
    ahead = f"{int(ids[-1].split('-')[0]) + 10**9}-0"
    with EventStream(site.proxy, f"/api/jobs/{job.id}/events", user.token, ahead) as stream:
        read_to_end(stream, within=60)
        events = check_frames(stream.frames)
        check_run(events, complete=True)
        assert "CUSTOM" in {event["type"] for event in events}


def test_faulty_event_sequences_give_valid_runs(
    site: Site, admin: Account, publisher: Publisher, shield_rng: Random
) -> None:
    """Jobs with duplicates, gaps, late events and malformed entries still give valid runs."""
    sequences = [with_random_faults(shield_rng, any_job(shield_rng)) for _ in range(25)]
    timed_entries = sorted(
        (
            (seconds, number, entry)
            for number, sequence in enumerate(sequences)
            for seconds, entry in with_due_times(sequence, 1)
        ),
        key=lambda it: it[:2],
    )
    entries = [entry for _, _, entry in timed_entries]
    jobs = {entry.job_id for entry in entries if isinstance(entry, ShieldEvent)}
    last = Job()
    with EventStream(site.proxy, "/events", admin.token) as feed:
        feed.wait_until_subscribed()
        publisher.publish_all(entries)
        feed.wait_for_id(publisher.publish_all(last.all_events(2))[-1], within=60)
        runs = check_feed(feed.events)
    assert jobs <= set(runs)
    site.wait_until_caught_up()
    for job_id in sorted(jobs)[:10]:
        with EventStream(site.proxy, f"/api/jobs/{job_id}/events", admin.token) as stream:
            if runs[job_id].terminal:
                read_to_end(stream, within=60)
            else:
                stream.wait(lambda it: it.events, "the run as it stands", within=60)
            assert check_run(stream.events).terminal == runs[job_id].terminal


def test_event_of_one_mebibyte_is_delivered(
    site: Site, user: Account, publisher: Publisher, shield_rng: Random
) -> None:
    job = Job(owner=user.id)
    with EventStream(site.proxy, "/events", user.token) as stream:
        stream.wait_until_subscribed()
        publisher.publish(job.started())
        written = publisher.publish(enlarged(shield_rng, job.chunk()))
        received = stream.wait_for_id(written, within=60)
        assert len(received.frame.data or "") > 1024 * 1024
        stream.wait_for_id(publisher.publish(job.complete()))


@pytest.mark.parametrize("path", ["/events", "/api/jobs", "/api/jobs/x/events", "/auth/me"])
@pytest.mark.parametrize("token", [None, "", "not.a.token"])
def test_missing_or_invalid_token_is_401(site: Site, path: str, token: str | None) -> None:
    answer = request(site.proxy, "GET", path, token=token)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


def test_job_of_another_user_is_404(
    site: Site, admin: Account, user: Account, stranger: Account, publisher: Publisher
) -> None:
    job, of_nobody = Job(owner=user.id), Job()
    publisher.publish_all([*job.all_events(3), *of_nobody.all_events(3)])
    wait_until_known(site, user, job)
    wait_until_known(site, admin, of_nobody)
    missing = request(site.proxy, "GET", "/api/jobs/no-such-job", token=stranger.token)
    for hidden in (job, of_nobody):
        for path in (f"/api/jobs/{hidden.id}", f"/api/jobs/{hidden.id}/events"):
            answer = request(site.proxy, "GET", path, token=stranger.token)
            assert answer.status == missing.status == 404
            assert answer.json()["title"] == missing.json()["title"]
    listed = request(site.proxy, "GET", "/api/jobs?limit=100", token=stranger.token).json()
    assert not {job.id, of_nobody.id} & {item["id"] for item in listed["items"]}
    assert request(site.proxy, "GET", f"/api/jobs/{job.id}", token=admin.token).status == 200


def test_feed_has_only_own_jobs(
    site: Site, user: Account, stranger: Account, publisher: Publisher
) -> None:
    others_job, own = Job(owner=user.id), Job(owner=stranger.id)
    with EventStream(site.proxy, "/events", stranger.token) as stream:
        stream.wait_until_subscribed()
        ids = publisher.publish_all(
            [*others_job.all_events(5), *Job().all_events(5), *own.all_events(5)]
        )
        stream.wait_for_id(ids[-1])
        assert {event["metadata"]["job_id"] for event in stream.events} == {own.id}
        assert stream.ids == ids[10:]


def test_stream_of_an_unknown_job_is_404(site: Site, user: Account) -> None:
    """A client that received 200 would wait forever."""
    with (
        pytest.raises(Refused) as refused,
        EventStream(site.proxy, "/api/jobs/no-such-job/events", user.token),
    ):
        pass
    assert refused.value.answer.status == 404


def test_redis_stream_is_trimmed(site: Site, publisher: Publisher) -> None:
    """The scenario must trim the stream as Shield does; otherwise the tests prove little."""
    job = Job()
    publisher.publish_all(job.all_events(10))
    assert site.redis.xlen("shield:events") < 2 * MAXLEN
