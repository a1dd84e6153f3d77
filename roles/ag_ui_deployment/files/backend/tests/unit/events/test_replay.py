"""Replays: clients that miss the same events share one pass, and each gets exactly its part."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ZERO, ShieldEvent, StreamId
from src.services.events import replay as event_replay
from src.services.events.feed import FeedRecord, FellBehindError
from src.services.events.job_projector import JobProjector
from src.services.events.replay import EventReplay
from tests.support.builders import new_projector, shield_event, stream, stream_id
from tests.support.memory_history import MemoryHistory

if TYPE_CHECKING:
    from src.services.events.history import EventHistory


class CountingHistory(MemoryHistory):
    """Counts the passes over the history."""

    passes = 0

    def pages(self, *arguments: Any, **named: Any) -> Any:
        self.passes += 1
        return super().pages(*arguments, **named)


def history_of(count: int, page: int = 7) -> CountingHistory:
    history = CountingHistory(page=page, trimmed=count)
    history.events = stream(*(shield_event(job=f"job-{n % 3}") for n in range(count)))
    return history


def replay_of(history: MemoryHistory, maximum: int = 8) -> EventReplay:
    return EventReplay(cast("EventHistory", history), maximum)


async def read(replay: EventReplay, cursor: StreamId, low_watermark: StreamId) -> list[StreamId]:
    return [one.id async for records in replay.records(cursor, low_watermark) for one in records]


def expected(
    events: list[ShieldEvent], cursor: StreamId, low_watermark: StreamId
) -> list[StreamId]:
    return [one.id for one in new_projector().apply(events) if cursor < one.id <= low_watermark]


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 40)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 3),
    st.sampled_from((1, 7, 100)),
)
def test_concurrent_clients_get_their_range_once_and_in_order(
    clients: list[tuple[int, int, int]], maximum: int, page: int
) -> None:
    async def run() -> None:
        history = history_of(300, page)
        replay = replay_of(history, maximum)

        async def client(cursor: StreamId, low_watermark: StreamId, later: int) -> list[StreamId]:
            for _ in range(later):
                await asyncio.sleep(0)
            return await read(replay, cursor, low_watermark)

        ranges = [
            (stream_id(min(a, b)) if min(a, b) else ZERO, stream_id(max(a, b)), later)
            for a, b, later in clients
        ]
        async with asyncio.timeout(20):
            found = await asyncio.gather(*(client(*client_range) for client_range in ranges))
        for (cursor, low_watermark, _), ids in zip(ranges, found, strict=True):
            assert ids == expected(history.events, cursor, low_watermark)
        assert not replay._passes

    asyncio.run(run())


async def test_clients_with_near_cursors_share_one_pass() -> None:
    history = history_of(500)
    replay = replay_of(history)
    reading = [
        asyncio.create_task(read(replay, stream_id(n), stream_id(480 + n % 20))) for n in range(100)
    ]
    await asyncio.gather(*reading)
    assert history.passes <= 2


async def test_distant_cursor_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_replay, "_SHARED_PASS_MS", 10)
    history = history_of(500)
    replay = replay_of(history)
    far = asyncio.create_task(read(replay, ZERO, stream_id(500)))
    near = asyncio.create_task(read(replay, stream_id(490), stream_id(500)))
    assert len(await near) == 10
    assert not far.done()
    assert len(await far) == 500


@pytest.mark.parametrize("ahead", [1, 2, 5])
async def test_slow_client_gets_everything(monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    monkeypatch.setattr(event_replay, "_QUEUE_MAX", ahead)
    history = history_of(700)
    ids: list[StreamId] = []
    async for records in replay_of(history).records(ZERO, stream_id(700)):
        ids += [one.id for one in records]
        for _ in range(20):
            await asyncio.sleep(0.001)
    assert ids == expected(history.events, ZERO, stream_id(700))


async def test_blocked_client_is_dropped_and_others_continue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_replay, "_QUEUE_MAX", 2)
    monkeypatch.setattr(event_replay, "_SLOW_READER_SECONDS", 0.05)
    history = history_of(2000)
    replay = replay_of(history)
    stuck = replay.records(ZERO, stream_id(2000))
    await anext(stuck)
    ids = await read(replay, stream_id(5), stream_id(2000))
    assert len(ids) == 1995
    with pytest.raises(FellBehindError):
        async for _ in stuck:
            pass


@pytest.mark.parametrize("maximum", [1, 3])
async def test_number_of_concurrent_passes_is_limited(
    monkeypatch: pytest.MonkeyPatch, maximum: int
) -> None:
    monkeypatch.setattr(event_replay, "_SHARED_PASS_MS", 0)
    gate = asyncio.Event()
    begun = 0

    class Gated(MemoryHistory):
        async def pages(
            self, after: StreamId, before: StreamId, job_id: str | None = None
        ) -> AsyncIterator[Sequence[ShieldEvent]]:
            nonlocal begun
            begun += 1
            await gate.wait()
            async for page in super().pages(after, before, job_id):
                yield page

    history = Gated(page=7, trimmed=200)
    history.events = history_of(200).events
    replay = replay_of(history, maximum)
    cursors = [stream_id(n) for n in range(10, 100, 10)]
    reading = [asyncio.create_task(read(replay, one, stream_id(200))) for one in cursors]
    for _ in range(100):
        await asyncio.sleep(0)
    assert begun == maximum
    gate.set()
    async with asyncio.timeout(20):
        found = await asyncio.gather(*reading)
    assert found == [expected(history.events, one, stream_id(200)) for one in cursors]


async def test_passes_pause_as_long_as_each_piece_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_replay, "_SHARED_PASS_MS", 0)
    now = 0.0
    pieces = 0
    rests: list[float] = []
    fold, sleep = JobProjector.apply, asyncio.sleep

    def apply(jobs: JobProjector, events: Iterable[ShieldEvent]) -> list[FeedRecord]:
        nonlocal now, pieces
        now += 1.0
        pieces += 1
        return fold(jobs, events)

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        before = pieces
        for _ in range(20):
            await sleep(0)
        assert pieces == before, "another pass works while one rests"

    replay = replay_of(history_of(500, page=500))
    reading = [
        asyncio.create_task(read(replay, cursor, stream_id(500)))
        for cursor in (ZERO, stream_id(100), stream_id(200))
    ]
    clock = SimpleNamespace(time=lambda: now)
    ours = {"sleep": rest, "get_running_loop": lambda: clock}
    with monkeypatch.context() as patches:
        patches.setattr(JobProjector, "apply", apply)
        patches.setattr(event_replay, "asyncio", SimpleNamespace(**(vars(asyncio) | ours)))
        await asyncio.gather(*reading)
    assert pieces > 3 * 5
    assert rests == [1.0] * pieces


async def test_error_reaches_all_clients_and_the_next_replay_works() -> None:
    history = history_of(50)
    replay = replay_of(history)
    good, history.job_events = history.job_events, None  # type: ignore[method-assign,assignment]
    results = await asyncio.gather(
        *(read(replay, stream_id(n), stream_id(50)) for n in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, Exception) for result in results)
    history.job_events = good  # type: ignore[method-assign]
    ids = await read(replay, ZERO, stream_id(50))
    assert len(ids) == 50
    assert all(a < b for a, b in pairwise(ids))
