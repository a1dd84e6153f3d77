"""The history: an unbroken sequence of events while Redis trims the stream."""

from collections.abc import AsyncIterator

import pytest

from src.models.event import ZERO, StreamId
from src.services.consumer.event_store import EventStore
from src.services.events import history as event_history
from src.services.events.history import EventHistory
from src.services.shield.parser import parse_entry
from src.utils.database import Database
from src.utils.redis import command_client
from tests.support.builders import fields_of, shield_event
from tests.support.environment import Environment

FAR = StreamId(2**62, 0)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_history, "_PAGE", 4)


@pytest.fixture
async def history(environment: Environment) -> AsyncIterator[EventHistory]:
    settings = environment.settings()
    redis, database = command_client(settings), Database(settings)
    yield EventHistory(redis, database, environment.stream, 1_000_000)
    await redis.aclose()
    await database.close()


async def fill(environment: Environment, count: int = 30) -> list[StreamId]:
    """Publish events of two jobs in bursts, and store them as the consumer would."""
    database = Database(environment.settings())
    ids: list[StreamId] = []
    for start in range(0, count, 7):
        burst = [shield_event(job=f"job-{n % 2}") for n in range(start, min(start + 7, count))]
        new = await environment.publish(*burst)
        parsed = [
            parse_entry(one, fields_of(event), 1_000_000)
            for one, event in zip(new, burst, strict=True)
        ]
        await EventStore(database).store(parsed)
        ids += new
    await database.close()
    return ids


async def read(
    history: EventHistory, after: StreamId, before: StreamId = FAR, job: str | None = None
) -> list[StreamId]:
    return [event.id async for page in history.pages(after, before, job) for event in page]


@pytest.mark.parametrize("kept", [30, 29, 12, 4, 1, 0])
async def test_any_range_across_redis_and_postgresql(
    environment: Environment, history: EventHistory, kept: int
) -> None:
    ids = await fill(environment)
    await environment.trim(kept)
    for number in range(0, len(ids), 3):
        cursor = ids[number]
        assert await read(history, cursor) == ids[number + 1 :]
        assert await read(history, ZERO, cursor) == ids[:number]
        assert await read(history, cursor, ids[-5]) == ids[number + 1 : -5]
        assert await read(history, cursor.previous(), cursor.next()) == [cursor]
    assert await read(history, ZERO, FAR, "job-1") == ids[1::2]


async def test_trimming_during_a_read(environment: Environment, history: EventHistory) -> None:
    ids = await fill(environment)
    found: list[StreamId] = []
    keep = len(ids)
    async for page in history.pages(ZERO, FAR):
        found += [event.id for event in page]
        keep = max(0, keep - 7)
        await environment.trim(keep)
    assert found == ids


async def test_poison_is_skipped(environment: Environment, history: EventHistory) -> None:
    first = await environment.publish(shield_event())
    await environment.publish(*([{b"hello": b"world"}] * 9))
    last = await environment.publish(shield_event())
    assert await read(history, ZERO) == first + last


async def test_id_above_which_redis_is_complete(
    environment: Environment, history: EventHistory
) -> None:
    before = await history.redis_low_watermark()
    ids = await fill(environment, 10)
    assert before < ids[0]
    assert (await history.redis_low_watermark()).next() == ids[0]
    await environment.trim(3)
    assert (await history.redis_low_watermark()).next() == ids[7]
    await environment.trim(0)
    assert await history.redis_low_watermark() >= ids[-1].previous()


async def test_newest_id(environment: Environment, history: EventHistory) -> None:
    assert await history.newest_id() == ZERO
    ids = await fill(environment, 3)
    assert await history.newest_id() == ids[-1]
    await environment.trim(0)
    assert await history.newest_id() == ids[-1]


async def test_position_of_an_empty_stream_is_no_gap(
    environment: Environment, history: EventHistory
) -> None:
    """Clients receive such an id before any event; no entry has it."""
    border = (await history.redis_low_watermark()).previous().next()
    assert border.is_last_of_millisecond
    assert await history.gap_after(border) is None
    await environment.publish(shield_event(), shield_event())
    assert await history.gap_after(border) is None
    await environment.trim(1)
    assert await history.gap_after(border) == "expired"


async def test_active_jobs(environment: Environment, history: EventHistory) -> None:
    database = Database(environment.settings())
    now = (await environment.query("SELECT (extract(epoch FROM now()) * 1000)::bigint"))[0][0]
    await EventStore(database).store(
        [
            shield_event(job="old", timestamp=now - 25 * 3_600_000),
            shield_event(job="earlier", timestamp=now - 2_000),
            shield_event("job:complete", job="ended", timestamp=now),
            shield_event(job="later", timestamp=now - 1_000),
        ]
    )
    await database.close()
    assert await history.active_jobs() == ["later", "earlier"]


async def test_reading_while_redis_refuses_writes(
    environment: Environment, history: EventHistory
) -> None:
    ids = await fill(environment)
    await environment.trim(12)
    async with environment.redis_refusing_writes():
        assert await read(history, ids[3]) == ids[4:]
