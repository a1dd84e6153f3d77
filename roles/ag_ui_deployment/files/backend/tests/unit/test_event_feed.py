"""A feed: shared records, a reader is a position, and a bound on what is held."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.services.event_feed import Feed, FellBehindError, Record
from tests.support.builders import stream_id


def record(number: int, size: int = 10) -> Record:
    return Record(stream_id(number), b"x" * size)


def test_readers_get_everything_in_order_at_their_own_pace() -> None:
    feed = Feed(1_000)
    records = [record(n) for n in range(10)]
    feed.append(records[:6])
    assert feed.read(0, 4) == records[:4]
    feed.append(records[6:])
    assert feed.read(4, 100) == records[4:]
    assert feed.read(0, 100) == records
    assert feed.read(feed.end, 100) == []


def test_who_is_slower_than_the_bound_allows_is_told() -> None:
    feed = Feed(100)
    feed.append([record(n) for n in range(30)])
    assert feed.end == 30
    assert len(feed.read(20, 100)) == 10
    with pytest.raises(FellBehindError):
        feed.read(19, 100)


def test_one_record_over_the_bound_still_gets_through() -> None:
    feed = Feed(100)
    feed.append([record(0), record(1, 5_000)])
    assert feed.read(1, 10) == [record(1, 5_000)]


@given(st.lists(st.lists(st.integers(1, 60), max_size=5), max_size=20), st.data())
def test_a_reader_sees_every_record_once_or_is_told(
    batches: list[list[int]], data: st.DataObject
) -> None:
    feed, position = Feed(100), 0
    sent: list[Record] = []
    got: list[Record] = []
    for sizes in batches:
        batch = [record(len(sent) + n, size) for n, size in enumerate(sizes)]
        sent += batch
        feed.append(batch)
        held = feed._bytes
        assert held <= 100 or len(feed._records) == 1
        if data.draw(st.booleans()):
            try:
                got += feed.read(position, data.draw(st.integers(1, 4)))
            except FellBehindError:
                assert position < feed._start
                return
            position = len(got)
        assert got == sent[: len(got)]


async def test_a_reader_sleeps_until_there_is_news() -> None:
    feed = Feed(1_000)
    waiting = asyncio.create_task(feed.wait(feed.end))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.append([record(1)])
    async with asyncio.timeout(1):
        await waiting
        await feed.wait(0)


async def test_many_sleepers_are_all_woken_each_time() -> None:
    feed = Feed(1_000)
    for number in range(3):
        waiting = [asyncio.create_task(feed.wait(feed.end)) for _ in range(50)]
        await asyncio.sleep(0)
        feed.append([record(number)])
        async with asyncio.timeout(1):
            await asyncio.gather(*waiting)


async def test_a_closed_feed_lets_go_of_its_readers_after_the_rest() -> None:
    feed = Feed(1_000)
    feed.append([record(1)])
    waiting = asyncio.create_task(feed.wait(feed.end))
    await asyncio.sleep(0)
    feed.close()
    async with asyncio.timeout(1):
        await waiting
    assert feed.closed
    assert feed.read(0, 10) == [record(1)]
