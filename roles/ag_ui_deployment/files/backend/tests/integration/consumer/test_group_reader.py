"""What a group member reads: all entries, in order, in bounded batches."""

import pytest

from src.models.event import StreamId
from src.services.consumer.group_reader import GroupReader
from src.services.consumer.losses import EntryLosses
from src.services.shield.parser import read_id
from src.utils.metrics import Metrics
from src.utils.redis import Row
from tests.support.builders import shield_event
from tests.support.environment import Environment

KIB = 1024


def reader_of(
    environment: Environment, name: str = "host-8002", batch_size: int = 500
) -> GroupReader:
    settings = environment.settings(REDIS_CONSUMER_NAME=name, CONSUMER_BATCH_SIZE=batch_size)
    losses = EntryLosses(Metrics())
    return GroupReader(environment.redis, settings, losses)


def ids_of(rows: list[Row]) -> list[StreamId]:
    return [read_id(row_id) for row_id, _ in rows]


async def publish(environment: Environment, count: int, size: int = 0) -> list[StreamId]:
    event = shield_event("job:progress", {"text": "x" * size})
    return await environment.publish(*(event for _ in range(count)))


@pytest.mark.parametrize(("batch_size", "count"), [(1, 3), (7, 20), (128, 300), (500, 500)])
async def test_batch_size_is_bounded(environment: Environment, batch_size: int, count: int) -> None:
    reader = reader_of(environment, batch_size=batch_size)
    await reader.join(None)
    ids = await publish(environment, count)
    read: list[StreamId] = []
    while batch := await reader.read_new():
        assert len(batch) == min(batch_size, count - len(read))
        read += ids_of(batch)
    assert read == ids
    assert reader.caught_up


async def test_entry_fields_are_unchanged(environment: Environment) -> None:
    reader = reader_of(environment)
    await reader.join(None)
    fields = {b"type": b"\xff\x00", b"": b"", b"data": b"{}", b"job_id": "ü".encode()}
    await environment.publish(fields)
    ((_, read),) = await reader.read_new()
    assert read == fields


async def test_batches_of_large_entries_are_bounded_in_bytes(environment: Environment) -> None:
    """Even after small entries: Redis cannot limit a read by bytes."""
    reader = reader_of(environment)
    await reader.join(None)
    ids = await publish(environment, 200) + await publish(environment, 100, 300 * KIB)
    read: list[StreamId] = []
    while batch := await reader.read_new():
        size = sum(len(value) for _, fields in batch for value in fields.values())
        assert size < 4096 * KIB + 8 * 301 * KIB
        read += ids_of(batch)
    assert read == ids


async def test_caught_up_tells_whether_entries_are_left(environment: Environment) -> None:
    reader = reader_of(environment, batch_size=5)
    await reader.join(None)
    await publish(environment, 7)
    await reader.read_new()
    assert not reader.caught_up
    await reader.read_new()
    assert reader.caught_up


async def test_pending_entries_are_read_until_acknowledged(
    environment: Environment,
) -> None:
    reader = reader_of(environment)
    await reader.join(None)
    ids = await publish(environment, 5)
    await reader.read_new()
    again = await reader.read_own_pending()
    assert ids_of(again) == ids
    await reader.acknowledge(again[:3])
    assert ids_of(await reader.read_own_pending()) == ids[3:]


async def test_two_members_share_the_entries(environment: Environment) -> None:
    one, other = reader_of(environment), reader_of(environment, "host-8003", batch_size=4)
    await one.join(None)
    await other.join(None)
    ids = await publish(environment, 10)
    taken = ids_of(await other.read_new())
    assert taken == ids[:4]
    assert ids_of(await one.read_new()) == ids[4:]


async def test_wait_delivers_nothing_and_ends_with_the_next_entry(environment: Environment) -> None:
    reader = reader_of(environment)
    await reader.join(None)
    assert await reader.read_new() == []
    await reader.wait(1)
    ids = await publish(environment, 1)
    await reader.wait(60_000)
    assert await environment.pending() == []
    assert ids_of(await reader.read_new()) == ids
