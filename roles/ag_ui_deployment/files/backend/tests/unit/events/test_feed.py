"""A feed: shared batches, reader positions, and limits on buffered data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.services.events.feed import (
    BATCH_BYTES,
    Batch,
    Feed,
    FeedLimits,
    FeedRecord,
    FellBehindError,
)
from tests.support.builders import stream_id

MANY = 1_000_000


def record(number: int, size: int = 10) -> FeedRecord:
    return FeedRecord(stream_id(number), bytes([number % 256]) * size)


def feed_of(max_bytes: int = MANY, max_events: int = MANY) -> Feed:
    """A feed with one reader at the start."""
    limits = FeedLimits(max_bytes, max_events)
    feed = Feed(limits, lambda record: record.frames.startswith(b"alone"))
    feed.join()
    return feed


def rest(feed: Feed, position: int = 0) -> list[Batch]:
    """Return all batches from a position on."""
    found = []
    while (batch := feed.read(position)) is not None:
        found.append(batch)
        position += 1
    return found


def test_readers_advance_independently() -> None:
    feed = feed_of()
    feed.append([record(1), record(2)])
    feed.append([record(3)])
    assert [batch.frames for batch in rest(feed)] == [
        record(1).frames + record(2).frames,
        record(3).frames,
    ]
    assert [batch.events for batch in rest(feed)] == [2, 1]
    assert [batch.newest_id for batch in rest(feed)] == [stream_id(2), stream_id(3)]
    assert rest(feed, 1) == rest(feed)[1:]
    assert feed.read(feed.end) is None


def test_readers_share_the_same_bytes() -> None:
    feed = feed_of()
    feed.append([record(1), record(2)])
    assert rest(feed)[0].frames is rest(feed)[0].frames
    one = record(3)
    feed.append([one])
    assert rest(feed)[1].frames is one.frames


def test_batch_size_is_bounded() -> None:
    feed = feed_of()
    feed.append([record(n, BATCH_BYTES // 4) for n in range(9)])
    assert [batch.events for batch in rest(feed)] == [4, 4, 1]


def test_record_that_needs_inspection_is_its_own_batch() -> None:
    feed = feed_of()
    alone = FeedRecord(stream_id(3), b"alone")
    feed.append([record(1), record(2), alone, record(4)])
    assert [batch.record_to_inspect for batch in rest(feed)] == [None, alone, None]
    assert [batch.events for batch in rest(feed)] == [2, 1, 1]
    feed.append([alone])
    assert rest(feed)[-1].record_to_inspect == alone


def test_notice_is_in_order_and_has_no_record() -> None:
    feed = feed_of()
    feed.append([record(1)])
    feed.notify(b"notice")
    feed.append([record(2)])
    assert rest(feed)[1] == Batch(b"notice", 0)
    assert rest(feed)[1].newest_id is None


@pytest.mark.parametrize("limits", [(100, MANY), (MANY, 10)])
def test_reader_behind_a_limit_gets_an_error(limits: tuple[int, int]) -> None:
    feed = feed_of(*limits)
    for number in range(30):
        feed.append([record(number)])
    assert feed.end == 30
    assert feed.has(20)
    assert not feed.has(19)
    assert len(rest(feed, 20)) == 10
    with pytest.raises(FellBehindError):
        feed.read(19)


def test_single_record_above_the_limit_is_kept() -> None:
    feed = feed_of(100)
    feed.append([record(0)])
    feed.append([record(1, 5_000)])
    assert rest(feed, 1)[0].frames == record(1, 5_000).frames


@given(st.lists(st.lists(st.integers(1, 60), max_size=5), max_size=20), st.data())
def test_reader_gets_every_record_once_or_an_error(
    batches: list[list[int]], data: st.DataObject
) -> None:
    feed, position = feed_of(100), 0
    sent: list[FeedRecord] = []
    got = b""
    for sizes in batches:
        batch = [record(len(sent) + n, size) for n, size in enumerate(sizes)]
        sent += batch
        feed.append(batch)
        assert feed._bytes <= 100 or len(feed._batches) == 1
        if data.draw(st.booleans()):
            try:
                read = feed.read(position)
            except FellBehindError:
                assert not feed.has(position)
                return
            if read is not None:
                got += read.frames
                position += 1
        assert b"".join(record.frames for record in sent).startswith(got)


def test_listener_is_called_until_it_is_removed() -> None:
    feed = feed_of()
    calls: list[int] = []

    def listener() -> None:
        calls.append(feed.end)

    feed.add_listener(listener)
    feed.append([record(1)])
    feed.notify(b"notice")
    assert calls == [1, 2]
    feed.remove_listener(listener)
    feed.append([record(2)])
    assert calls == [1, 2]
    feed.remove_listener(listener)


def test_listener_may_remove_itself_during_a_call() -> None:
    feed = feed_of()
    calls: list[str] = []

    def once() -> None:
        calls.append("once")
        feed.remove_listener(once)

    def always() -> None:
        calls.append("always")

    feed.add_listener(once)
    feed.add_listener(always)
    feed.append([record(1)])
    feed.append([record(2)])
    assert calls == ["once", "always", "always"]


def test_closed_feed_notifies_and_remains_readable() -> None:
    feed = feed_of()
    feed.append([record(1)])
    calls: list[bool] = []
    feed.add_listener(lambda: calls.append(feed.closed))
    feed.close()
    assert calls == [True]
    assert rest(feed)[0].frames == record(1).frames


def test_batches_read_by_all_readers_are_dropped() -> None:
    feed = Feed(FeedLimits(100 * MANY, MANY), lambda _: False)
    quick, slow = feed.join(), feed.join()
    for number in range(100):
        feed.append([record(number, BATCH_BYTES)])
        quick.position = feed.end
        slow.position = max(0, feed.end - 30)
        assert feed.has(slow.position)
    held = rest(feed, slow.position)
    assert [batch.newest_id for batch in held] == [stream_id(number) for number in range(70, 100)]
    assert not feed.has(slow.position - 5)
    feed.leave(slow)
    for number in range(100, 105):
        feed.append([record(number, BATCH_BYTES)])
        quick.position = feed.end
    assert not feed.has(feed.end - 5)
