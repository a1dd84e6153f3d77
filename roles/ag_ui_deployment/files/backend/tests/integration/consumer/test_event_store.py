"""PostgreSQL's content does not depend on the order, size and repetition of batches."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.models.event import Poison, ShieldEvent, StreamId
from src.repositories import events as event_rows
from src.services.consumer.event_store import EventStore
from src.utils.database import Database
from tests.support.builders import JOB, OWNER, beyond_an_index, shield_event, stream
from tests.support.environment import Environment
from tests.support.strategies import KNOWN_TYPES, METADATA, noise, spoiled, story

JOB_COLUMNS = "status, percent, error, result::text, created_at, updated_at, completed_at"


@pytest.fixture
async def database(environment: Environment) -> AsyncIterator[Database]:
    opened = Database(environment.settings())
    yield opened
    await opened.close()


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Draw examples in advance: the database is async, and Hypothesis calls plain functions."""
    drawn: list[Any] = []

    @settings(max_examples=count, database=None, deadline=None, derandomize=True)
    @given(strategy)
    def collect(example: Any) -> None:
        drawn.append(example)

    collect()
    return drawn


async def test_jobs_are_the_same_in_whatever_order_their_batches_come(
    environment: Environment, database: Database
) -> None:
    store = EventStore(database)
    chance = random.Random(7)
    histories: list[list[ShieldEvent]] = examples(story() | spoiled() | noise(), 40)
    for number, history in enumerate(histories):
        ways = []
        for way in range(3):
            job = f"job-{number}-{way}"
            # Separate ranges of stream ids; two users of one job would be another test.
            events = [
                replace(
                    event,
                    id=StreamId(event.id.ms + number * 1000 + way * 100_000_000, event.id.seq),
                    job_id=job,
                    metadata={**event.metadata, "user_id": OWNER},
                )
                for event in history
            ]
            if way:
                chance.shuffle(events)
            size = (len(events), 1, 3)[way]
            batches = [events[at : at + size] for at in range(0, len(events), size)]
            for batch in [*batches, chance.choice(batches)]:
                await store.store(sorted(batch, key=lambda event: event.id))
            found = await environment.query(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = $1", job)  # noqa: S608 - names of ours
            ways.append([tuple(row) for row in found])
        assert ways[0] == ways[1] == ways[2], history


async def test_what_is_stored_is_read_again_unchanged(database: Database) -> None:
    """Otherwise a client that resumes from PostgreSQL would get other bytes than from Redis."""
    events = stream(
        *(
            replace(event, event_id=f"e-{n}")
            for n, history in enumerate(examples(noise(), 40))
            for event in history
        )
    )
    await EventStore(database).store(events)
    async with database.transaction() as session:
        last = events[-1].id.next()
        found = await event_rows.page(session, StreamId(0, 0), last, len(events) + 1)
    assert found == events
    for stored, event in zip(found, events, strict=True):
        assert orjson.dumps(stored.data) == orjson.dumps(event.data)


async def test_a_page_is_cut_at_its_borders(database: Database) -> None:
    events = stream(*(shield_event(job=f"job-{n % 2}") for n in range(10)))
    await EventStore(database).store(events)
    async with database.transaction() as session:
        between = await event_rows.page(session, events[2].id, events[7].id, 100)
        assert between == events[3:7]
        assert await event_rows.page(session, events[2].id, events[7].id, 2) == events[3:5]
        of_one = await event_rows.page(session, events[0].id, events[9].id, 100, ["job-0"])
        assert of_one == events[2:9:2]
        of_both = await event_rows.page(
            session, StreamId(0, 0), events[5].id, 100, ["job-0", "job-1"]
        )
        assert of_both == events[:5]
        assert await event_rows.page(session, StreamId(0, 0), events[5].id, 100, ["job-7"]) == []


async def test_which_ids_are_stored_and_which_are_the_first_and_the_last(
    database: Database,
) -> None:
    store = EventStore(database)
    assert await store.newest_id() is None
    events = stream(*(shield_event() for _ in range(5)))
    dead = Poison(StreamId(1, 0), "no type", b"{}")
    stored = await store.store([*events[:3], dead])
    assert (stored.events, stored.poison) == (3, [dead])
    assert await store.newest_id() == events[2].id
    missing = await store.missing([*(event.id for event in reversed(events)), dead.id])
    assert missing == [events[3].id, events[4].id]
    assert await store.missing([]) == []
    async with database.transaction() as session:
        assert await event_rows.first_id(session) == events[0].id
        assert await event_rows.count(session, StreamId(0, 0), events[2].id) == 3


async def test_events_are_counted_once(database: Database) -> None:
    store = EventStore(database)
    events = stream(*(shield_event() for _ in range(5)))
    assert (await store.store(events[:3])).events == 3
    assert (await store.store(events)).events == 2
    assert (await store.store(events)).events == 0


async def test_every_type_ends_in_a_status_that_the_list_can_filter(
    environment: Environment, database: Database
) -> None:
    await EventStore(database).store(
        stream(*(shield_event(kind, job=kind) for kind in KNOWN_TYPES))
    )
    rows = await environment.query("SELECT DISTINCT status FROM jobs")
    assert {row[0] for row in rows} <= {"queued", "running", "completed", "failed", "cancelled"}


async def test_whatever_the_metadata_hold(environment: Environment, database: Database) -> None:
    events = [
        shield_event(metadata=one, job=f"j{n}") for n, one in enumerate(examples(METADATA, 30))
    ]
    stored = await EventStore(database).store(events)
    assert stored.events == len(events)
    assert stored.poison == []
    assert len(await environment.query("SELECT * FROM jobs")) == len(events)


async def test_a_value_beyond_an_index_costs_one_event(
    environment: Environment, database: Database
) -> None:
    events = [
        shield_event(workspace=beyond_an_index() if n == 2 else "red", job=f"j{n}")
        for n in range(5)
    ]
    stored = await EventStore(database).store(events)
    assert stored.events == 4
    assert [one.id for one in stored.poison] == [events[2].id]
    assert len(await environment.dead_letters()) == 1


async def test_percent_of_a_job_never_falls(environment: Environment, database: Database) -> None:
    store = EventStore(database)
    for percent in (10, 80, 30):
        await store.store([shield_event(data={"percent": percent})])
    ((shown,),) = await environment.query("SELECT percent FROM jobs WHERE id = $1", JOB)
    assert shown == 80


async def test_batches_that_meet_in_the_same_jobs_do_not_deadlock(database: Database) -> None:
    store = EventStore(database)
    for turn in range(15):
        batches = []
        for way in (1, -1):
            order = [f"job-{n}" for n in range(40)][::way]
            batches.append(
                [
                    # The timestamps run in opposite order too, so that no other sort order prevents
                    # the deadlock.
                    shield_event(
                        job=job, number=(turn * 2 + (way > 0)) * 100 + n, timestamp=1_000 + n
                    )
                    for n, job in enumerate(order)
                ]
            )
        await asyncio.gather(*(store.store(batch) for batch in batches))
