"""Runs as the official client sees them, however it receives them.

Whatever happens to the connection, a client ends in the state of an uninterrupted one, without a
warning.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

from src.models.event import ShieldEvent, StreamId
from src.models.user import User
from tests.run_checker import Frame
from tests.support.agui_client import AgUiClient
from tests.support.environment import Environment
from tests.support.event_sequences import (
    AWKWARD,
    EVENT_SEQUENCES,
    every_job,
    late,
    long_job,
    unchanged,
)
from tests.support.official_client import (
    Following,
    Held,
    OfficialClient,
    OfficialClients,
)
from tests.support.server import Backend, running, two_instances
from tests.support.sse import frames_by_job, sse, wait_until_received
from tests.support.strategies import KNOWN_TYPES
from tests.support.waiting import until

Jobs = dict[str, list[ShieldEvent]]

OUTCOMES = {
    "job:complete": "success",
    "ingestion.completed": "success",
    "query.completed": "success",
    "job.completed": "success",
    "job:cancelled": "cancelled",
    "job:failed": "error",
    "ingestion.failed": "error",
    "error": "error",
}

# Replay from the very first event, instead of a snapshot.
FIRST = {"last_event_id": "0-0"}


@pytest.fixture
async def owner(backend: Backend) -> User:
    """The owner of the jobs."""
    return await backend.add_user("alice@shield.test")


def url_of(backend: Backend, job: str) -> str:
    return f"{backend.http.base_url}/api/jobs/{quote(job, safe='')}/events"


def outcome_of(events: Iterable[ShieldEvent]) -> str:
    """Return the outcome of the first terminal event; later ones are ignored as late."""
    return next(OUTCOMES[event.type] for event in events if event.type in OUTCOMES)


def in_turn(jobs: Iterable[Sequence[ShieldEvent]]) -> Iterator[list[ShieldEvent]]:
    """Yield the first events of all jobs, then the second events, and so on."""
    for events in zip_longest(*jobs):
        yield [event for event in events if event is not None]


async def published(environment: Environment, jobs: Jobs, owner: User, *instances: Backend) -> None:
    """Publish all events, and wait until the instances have received them."""
    for events in in_turn(jobs.values()):
        await environment.publish(*events)
    for instance in instances:
        async with sse(instance.http, token=instance.token_of(owner)) as feed:
            await wait_until_received(environment, feed, owner)


async def all_held(following: dict[str, Following]) -> dict[str, Held]:
    return {job: await one.held() for job, one in following.items()}


def check_same(held: dict[str, Held], expected: dict[str, Held]) -> None:
    """Compare job by job, so that a failure shows the job and the difference."""
    assert held.keys() == expected.keys()
    for job, one in held.items():
        assert (job, one.shown) == (job, expected[job].shown)


def jobs_with_faults(jobs: Jobs, *faults: Any) -> Jobs:
    names = tuple(f", {fault.__name__}" for fault in faults)
    return {job: events for job, events in jobs.items() if job.endswith(names)}


def encoded(frames: Iterable[Frame]) -> bytes:
    """Serialise frames with the fields that the official client and the Node program use."""
    lines = [
        f"id: {one.id}\ndata: {one.data}\n\n" if one.id else f"data: {one.data}\n\n"
        for one in frames
    ]
    return "".join(lines).encode()


def renamed(repeated: Held) -> Any:
    """Return the state of a job with repeated events, renamed to the job without them."""
    return json.loads(json.dumps(repeated.shown).replace(", repeated", ", unchanged"))


def messages_by_id(held: Held) -> dict[tuple[str, str], Any]:
    """Convert the client's messages to the format of the unit tests' client."""
    shown: dict[tuple[str, str], Any] = {}
    for message in held.messages:
        if message["role"] == "activity":
            shown[message["id"], "activity"] = message["content"]
        elif message["role"] == "tool":
            shown[message["id"], "result"] = message["content"]
        elif "toolCalls" in message:
            for call in message["toolCalls"]:
                shown[call["id"], "call"] = call["function"]
        else:
            shown[message["id"], "text"] = {"text": message["content"]}
    assert len(shown) == len(held.messages)
    return shown


def client_messages_by_id(client: AgUiClient) -> dict[tuple[str, str], Any]:
    return {(one["id"], one["kind"]): one["content"] for one in client.messages}


def test_event_sequences_contain_every_type() -> None:
    assert {kind for sequence in EVENT_SEQUENCES.values() for kind, _ in sequence} >= set(
        KNOWN_TYPES
    )


class TestAllJobs:
    async def test_live_replayed_and_feed_states_are_equal(
        self, backend: Backend, owner: User, environment: Environment, clients: OfficialClients
    ) -> None:
        token = backend.token_of(owner)
        jobs = every_job(str(owner.id))
        live: dict[str, Following] = {}
        async with sse(backend.http, token=token) as feed:
            for number, events in enumerate(in_turn(jobs.values())):
                await environment.publish(*events)
                if number:
                    continue
                await wait_until_received(environment, feed, owner)
                for job in jobs:
                    live[job] = clients.new().follow(url_of(backend, job), token)
                for following in live.values():
                    await following.joined()
            held = await all_held(live)
            afterwards = {job: clients.new().follow(url_of(backend, job), token) for job in jobs}
            check_same(await all_held(afterwards), held)
            frames = list(feed.frames)
        parts = frames_by_job(frames)
        played = {job: clients.new().play(encoded(parts[job])) for job in jobs}
        check_same(await all_held(played), held)
        for job, job_events in jobs.items():
            assert (job, held[job].outcome) == (job, outcome_of(job_events))
            model = AgUiClient().apply(frame.json() for frame in parts[job])
            assert (job, messages_by_id(held[job])) == (job, client_messages_by_id(model))
        for name in EVENT_SEQUENCES:
            unmodified, repeated = held[f"{name}, unchanged"], held[f"{name}, repeated"]
            assert (name, renamed(repeated)) == (name, unmodified.shown)
        answer = held["query, unchanged"].messages[-1]
        assert (answer["role"], answer["content"]) == ("assistant", AWKWARD)
        assert [message["id"] for message in held["interleaved tools, unchanged"].messages] == [
            "job:interleaved tools, unchanged",
            *(
                f"{kind}{call}"
                for call in ("a", "nameless-1", "b", "c")
                for kind in ("", "res:", "tool:")
            ),
        ]

    async def test_joined_after_every_event(
        self, environment: Environment, clients: OfficialClients
    ) -> None:
        settings = environment.settings(STREAMS_PER_USER=1000)
        async with running(settings) as backend:
            owner = await backend.add_user("alice@shield.test")
            token = backend.token_of(owner)
            jobs = jobs_with_faults(every_job(str(owner.id)), unchanged, late)
            joined: list[dict[str, Following]] = []
            async with sse(backend.http, token=token) as feed:
                for events in in_turn(jobs.values()):
                    await environment.publish(*events)
                    await wait_until_received(environment, feed, owner)
                    joined.append(
                        {
                            event.job_id: clients.new().follow(url_of(backend, event.job_id), token)
                            for event in events
                            if event.job_id
                        }
                    )
                    for following in joined[-1].values():
                        await following.joined()
            first = await all_held(joined[0])
            for later in joined[1:]:
                held = await all_held(later)
                check_same(held, {job: first[job] for job in held})


class TestInterruptions:
    async def test_cut_after_every_frame(
        self, environment: Environment, clients: OfficialClients
    ) -> None:
        """Includes frames within a record, which is then sent again."""
        async with two_instances(environment) as (one, other):
            owner = await one.add_user("alice@shield.test")
            token = one.token_of(owner)
            jobs = jobs_with_faults(every_job(str(owner.id)), unchanged)
            await published(environment, jobs, owner, one, other)

            async def check(job: str, whole: Held, frames: int) -> None:
                client = clients.new()
                await client.follow(url_of(one, job), token, **FIRST, cut={"frames": frames}).held()
                held = await client.follow(url_of(other, job), token).held()
                assert (job, frames, held.shown) == (job, frames, whole.shown)

            for job in jobs:
                whole = await clients.new().follow(url_of(one, job), token, **FIRST).held()
                async with asyncio.TaskGroup() as group:
                    for frames in range(1, len(whole.ids) + 1):
                        group.create_task(check(job, whole, frames))

    @pytest.mark.parametrize(("ring", "trimmed_to"), [(1, 20), (10, 20), (10, 3), (1, 0)])
    async def test_cut_across_ring_redis_and_postgresql(
        self, environment: Environment, clients: OfficialClients, ring: int, trimmed_to: int
    ) -> None:
        """Resumes at the same instance, and at one that has just started."""
        fresh = environment.settings(RING_MAX_EVENTS=ring, REDIS_CONSUMER_NAME="host-8003")
        async with running(environment.settings(RING_MAX_EVENTS=ring)) as one:
            owner = await one.add_user("alice@shield.test")
            token = one.token_of(owner)
            names = ("query, unchanged", "interleaved tools, unchanged", "crawl, repeated")
            jobs = {job: every_job(str(owner.id))[job] for job in names}
            await published(environment, jobs, owner, one)
            await until(environment.settled)
            whole = await all_held(
                {job: clients.new().follow(url_of(one, job), token, **FIRST) for job in jobs}
            )
            ids = [len([one for one in held.ids if one]) for held in whole.values()]
            cuts = [
                (job, cut + 1) for job, count in zip(jobs, ids, strict=True) for cut in range(count)
            ]
            before = {cut: (clients.new(), clients.new()) for cut in cuts}

            async def cut_off(client: OfficialClient, job: str, number: int) -> None:
                await client.follow(url_of(one, job), token, **FIRST, cut={"ids": number}).held()

            async with asyncio.TaskGroup() as group:
                for cut, pair in before.items():
                    for client in pair:
                        group.create_task(cut_off(client, *cut))
            await environment.trim(trimmed_to)

            async def check(
                client: OfficialClient, instance: Backend, job: str, number: int
            ) -> None:
                held = await client.follow(url_of(instance, job), token).held()
                assert (job, number, held.shown) == (job, number, whole[job].shown)

            async with running(fresh) as other, asyncio.TaskGroup() as group:
                for cut, pair in before.items():
                    for client, instance in zip(pair, (one, other), strict=True):
                        group.create_task(check(client, instance, *cut))

    async def test_repeated_cuts_while_events_are_published(
        self, environment: Environment, clients: OfficialClients
    ) -> None:
        chance = Random(3)
        async with two_instances(environment) as instances:
            owner = await instances[0].add_user("alice@shield.test")
            token = instances[0].token_of(owner)
            jobs = {f"long {n}": long_job(f"long {n}", str(owner.id)) for n in range(6)}
            begun = {job: job_events[:1] for job, job_events in jobs.items()}
            await published(environment, begun, owner, *instances)
            live = {job: clients.new().follow(url_of(instances[0], job), token) for job in jobs}
            connections = 0

            async def resume(job: str) -> Held:
                nonlocal connections
                client = clients.new()
                while True:
                    connections += 1
                    cut = {"ids": chance.randint(1, 9), "abrupt": chance.random() < 0.5}
                    url = url_of(chance.choice(instances), job)
                    held = await client.follow(url, token, cut=cut).held()
                    if held.outcome:
                        return held

            async def publish() -> None:
                for events in in_turn(job_events[1:] for job_events in jobs.values()):
                    for event in events:
                        await environment.publish(event)

            async with asyncio.TaskGroup() as group:
                resuming = {job: group.create_task(resume(job)) for job in jobs}
                group.create_task(publish())
            check_same({job: one.result() for job, one in resuming.items()}, await all_held(live))
            assert connections > 5 * len(jobs)

    async def test_stopped_instance(
        self, environment: Environment, clients: OfficialClients
    ) -> None:
        job = "interleaved tools, unchanged"
        fresh = environment.settings(REDIS_CONSUMER_NAME="host-8003")
        async with running(environment.settings()) as other:
            owner = await other.add_user("alice@shield.test")
            token = other.token_of(owner)
            job_events = every_job(str(owner.id))[job]
            client = clients.new()
            async with sse(other.http, token=token) as feed:
                await environment.publish(*job_events[:8])
                await wait_until_received(environment, feed, owner)
                async with running(fresh) as stopped:
                    leaving = client.follow(url_of(stopped, job), token)
                    await leaving.joined()
                held = await leaving.held()
                assert held.outcome is None
                following = client.follow(url_of(other, job), token)
                await environment.publish(*job_events[8:])
                held = await following.held()
            whole = clients.new().follow(url_of(other, job), token)
            assert held.shown == (await whole.held()).shown

    async def test_replaced_stream(
        self, backend: Backend, owner: User, environment: Environment, clients: OfficialClients
    ) -> None:
        """The client's state may come from a deleted stream: it is notified and starts again."""
        job = "interleaved tools, unchanged"
        token = backend.token_of(owner)
        async with sse(backend.http, token=token) as feed:
            await environment.publish(*every_job(str(owner.id))[job])
            await wait_until_received(environment, feed, owner)
        client = clients.new()
        before = await client.follow(url_of(backend, job), token).held()
        unknown = str(StreamId(2**50, 0))
        again = client.follow(url_of(backend, job), token, last_event_id=unknown)
        assert (await again.held()).shown == before.shown


class TestRefusals:
    @pytest.mark.parametrize(("cursor", "status"), [(None, 404), ("no cursor", 400)])
    async def test_refusal_is_an_error_of_the_client(
        self,
        backend: Backend,
        owner: User,
        clients: OfficialClients,
        cursor: str | None,
        status: int,
    ) -> None:
        url, token = url_of(backend, "unknown"), backend.token_of(owner)
        assert await refused(clients, url, token, last_event_id=cursor) == status

    async def test_invalid_token(self, backend: Backend, clients: OfficialClients) -> None:
        assert await refused(clients, url_of(backend, "unknown"), "wrong") == 401


async def refused(clients: OfficialClients, url: str, token: str, **options: Any) -> object:
    """Return the status code that the client is refused with."""
    held = await clients.new().follow(url, token, **options).held_with_faults()
    assert held.failure
    return held.failure["status"]
