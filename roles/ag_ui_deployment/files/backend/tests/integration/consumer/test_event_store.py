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
from tests.support.builders import JOB, OWNER, shield_event, stream, text_too_large_for_an_index
from tests.support.environment import Environment
from tests.support.strategies import (
    KNOWN_TYPES,
    METADATA,
    faulty_history,
    random_events,
    valid_history,
)

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


async def test_jobs_do_not_depend_on_the_order_of_batches(
    environment: Environment, database: Database
) -> None:
    store = EventStore(database)
    chance = random.Random(7)
    histories: list[list[ShieldEvent]] = examples(
        valid_history() | faulty_history() | random_events(), 40
    )
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


async def test_stored_events_are_unchanged(database: Database) -> None:
    """Otherwise a client that resumes from PostgreSQL would get other bytes than from Redis."""
    events = stream(
        *(
            replace(event, event_id=f"e-{n}")
            for n, history in enumerate(examples(random_events(), 40))
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


async def test_page_limits(database: Database) -> None:
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


async def test_stored_and_missing_ids(
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


async def test_duplicate_events_are_not_counted(database: Database) -> None:
    store = EventStore(database)
    events = stream(*(shield_event() for _ in range(5)))
    assert (await store.store(events[:3])).events == 3
    assert (await store.store(events)).events == 2
    assert (await store.store(events)).events == 0


async def test_every_type_leads_to_a_known_status(
    environment: Environment, database: Database
) -> None:
    await EventStore(database).store(
        stream(*(shield_event(kind, job=kind) for kind in KNOWN_TYPES))
    )
    rows = await environment.query("SELECT DISTINCT status FROM jobs")
    assert {row[0] for row in rows} <= {"queued", "running", "completed", "failed", "cancelled"}


async def test_any_metadata_is_stored(environment: Environment, database: Database) -> None:
    events = [
        shield_event(metadata=one, job=f"j{n}") for n, one in enumerate(examples(METADATA, 30))
    ]
    stored = await EventStore(database).store(events)
    assert stored.events == len(events)
    assert stored.poison == []
    assert len(await environment.query("SELECT * FROM jobs")) == len(events)


async def test_value_too_large_for_an_index_is_one_dead_letter(
    environment: Environment, database: Database
) -> None:
    events = [
        shield_event(workspace=text_too_large_for_an_index() if n == 2 else "red", job=f"j{n}")
        for n in range(5)
    ]
    stored = await EventStore(database).store(events)
    assert stored.events == 4
    assert [one.id for one in stored.poison] == [events[2].id]
    assert len(await environment.dead_letters()) == 1


async def test_percent_of_a_job_never_decreases(
    environment: Environment, database: Database
) -> None:
    store = EventStore(database)
    for percent in (10, 80, 30):
        await store.store([shield_event(data={"percent": percent})])
    ((shown,),) = await environment.query("SELECT percent FROM jobs WHERE id = $1", JOB)
    assert shown == 80


async def test_concurrent_batches_do_not_deadlock(database: Database) -> None:
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
