"""One client's stream, with the history in memory: any cursor, any border, any moment to join."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ZERO, ShieldEvent, StreamId
from src.services import event_fold
from src.services.event_feed import Record
from src.services.event_hub import EVERYTHING, Scope
from src.services.event_stream import EventStreams
from tests.run_checker import Frame, check_feed, check_frames, check_run, job_of, parse_frames
from tests.support.agui_client import AgUiClient
from tests.support.builders import (
    JOB,
    OWNER,
    STRANGER,
    shield_event,
    stream,
    stream_fold,
    stream_id,
)
from tests.support.memory_history import MemoryHistory, Process
from tests.support.strategies import interleaved, noise, spoiled, story

if TYPE_CHECKING:
    from src.services.event_history import EventHistory

MINE = Scope(owner=UUID(OWNER))
OTHER_JOB = "0c2c0d3e-7d6b-4d5f-9a38-0e6d3f8b1b22"
AN_HOUR = 3600.0


def streams(process: Process) -> EventStreams:
    return EventStreams(process.hub, cast("EventHistory", process.history), 2000)


async def received(
    process: Process,
    scope: Scope,
    cursor: StreamId | None = None,
    later: Iterable[ShieldEvent] = (),
) -> list[Frame]:
    """All frames of a connection, during which `later` is published; then the process drains."""
    chunks = bytearray()

    async def read() -> None:
        async for chunk in streams(process).open(scope, cursor, time.time() + AN_HOUR):
            chunks.extend(chunk)

    reading = asyncio.create_task(read())
    for event in later:
        await asyncio.sleep(0)
        process.publish(event)
    await asyncio.sleep(0)
    process.hub.drain()
    async with asyncio.timeout(10):
        await reading
    return parse_frames(bytes(chunks))


def events_of(frames: Iterable[Frame]) -> list[dict[str, Any]]:
    return [frame.json() for frame in frames if frame.data is not None]


def ids_of(frames: Iterable[Frame]) -> list[str]:
    return [frame.id for frame in frames if frame.id is not None]


def records(events: Sequence[ShieldEvent], scope: Scope) -> list[Record]:
    """What a client of the scope is to get of a stream, by the fold alone."""
    return [record for record in stream_fold().apply(events) if scope.shows(record)]


def seen(events: Iterable[dict[str, Any]], clients: dict[str, AgUiClient] | None = None) -> Any:
    """What a client of a feed sees of each job; goes on from an earlier connection."""
    clients = dict(clients or {})
    for event in events:
        job = job_of(event)
        if job is not None:
            clients.setdefault(job, AgUiClient()).apply([event])
    return clients


@dataclass(frozen=True)
class Case:
    """A stream, and where the borders in it lie, as numbers of events."""

    events: list[ShieldEvent]
    began_at: int
    trimmed: int
    stored: int
    connects_at: int
    ring: int
    page: int
    cursor: int | None

    async def process(self) -> Process:
        history = MemoryHistory(self.trimmed, self.page, self.stored)
        process = Process(history, self.ring, self.began_at)
        await process.begin(self.events[: self.connects_at])
        return process

    @property
    def last_id(self) -> StreamId | None:
        if self.cursor is None:
            return None
        return self.events[self.cursor - 1].id if self.cursor else ZERO

    @property
    def later(self) -> list[ShieldEvent]:
        return self.events[self.connects_at :]


@st.composite
def cases(draw: st.DrawFn, *, resumes: bool = True) -> Case:
    mine = draw(story() | spoiled() | noise())
    theirs = draw(story(OTHER_JOB, STRANGER) | story(OTHER_JOB, None) | story(OTHER_JOB, OWNER))
    workers = [shield_event("worker.started", job=None), shield_event("worker.stopped", job=None)]
    order = draw(st.lists(st.integers(0, 2), max_size=30))
    events = interleaved([mine, theirs, workers], order)
    connects_at = draw(st.integers(0, len(events)), label="connects at")
    began_at = draw(st.integers(0, connects_at), label="process began at")
    # A process begins above what Redis had let go; Redis lets go of more, once it is stored.
    trimmed = draw(st.integers(began_at, connects_at), label="trimmed")
    return Case(
        events=events,
        began_at=began_at,
        trimmed=trimmed,
        stored=draw(st.integers(trimmed, connects_at), label="stored"),
        connects_at=connects_at,
        ring=draw(st.sampled_from((1, 2, 5, 20_000)), label="ring"),
        page=draw(st.sampled_from((1, 3, 500)), label="page"),
        cursor=draw(st.integers(0, connects_at), label="cursor") if resumes else None,
    )


class TestResuming:
    @given(cases(), st.sampled_from((EVERYTHING, MINE)))
    def test_exactly_what_came_after_the_cursor_in_the_same_bytes(
        self, case: Case, scope: Scope
    ) -> None:
        async def run() -> list[Frame]:
            return await received(await case.process(), scope, case.last_id, case.later)

        frames = asyncio.run(run())
        check_frames(frames)
        check_feed(events_of(frames))
        cursor = case.last_id or ZERO
        expected = [record for record in records(case.events, scope) if record.id > cursor]
        assert ids_of(frames) == [str(record.id) for record in expected]
        wanted = [frame for record in expected for frame in parse_frames(record.frames)]
        assert [frame for frame in frames if frame in wanted] == wanted

    @given(cases(), st.sampled_from((EVERYTHING, MINE)))
    def test_the_user_sees_what_an_uninterrupted_client_sees(
        self, case: Case, scope: Scope
    ) -> None:
        async def run() -> tuple[list[Frame], list[Frame], list[Frame]]:
            whole = Process(MemoryHistory())
            await whole.begin([])
            before = Process(MemoryHistory())
            await before.begin([])
            return (
                await received(whole, scope, later=case.events),
                await received(before, scope, later=case.events[: case.cursor]),
                await received(await case.process(), scope, case.last_id, case.later),
            )

        whole, before, after = asyncio.run(run())
        check_feed(events_of(whole))
        assert seen(events_of(after), seen(events_of(before))) == seen(events_of(whole))

    @given(cases(), st.sampled_from((JOB, OTHER_JOB)))
    def test_one_job(self, case: Case, job: str) -> None:
        async def run() -> list[Frame]:
            return await received(await case.process(), Scope(job_id=job), case.last_id, case.later)

        frames = asyncio.run(run())
        check_frames(frames)
        cursor = case.last_id or ZERO
        every = records(case.events, Scope(job_id=job))
        missed = [str(record.id) for record in every if record.id > cursor]
        ended_before = any(record.ends_run and record.id <= cursor for record in every)
        # A client that has the end already is told it again, since its run has no other.
        assert ids_of(frames) == (missed or [str(e.id) for e in every if ended_before][-1:])
        if frames:
            run_of_client = check_run(events_of(frames))
            assert (run_of_client.terminal is not None) is any(one.ends_run for one in every)


class TestJoining:
    @given(cases(resumes=False), st.sampled_from((EVERYTHING, MINE)))
    def test_the_current_state_and_then_what_comes(self, case: Case, scope: Scope) -> None:
        async def run() -> tuple[list[Frame], list[Frame]]:
            whole = Process(MemoryHistory())
            await whole.begin([])
            return (
                await received(whole, scope, later=case.events),
                await received(await case.process(), scope, None, case.later),
            )

        whole, joined = asyncio.run(run())
        check_frames(joined)
        check_feed(events_of(joined))
        live = case.later[0].id if case.later else StreamId(2**62, 0)
        expected = [record for record in records(case.events, scope) if record.id >= live]
        assert ids_of(joined) == [str(record.id) for record in expected]

        every = seen(events_of(whole))
        for job, client in seen(events_of(joined)).items():
            assert client == every[job]
        on = {record.job_id for record in expected if record.job_id}
        assert on <= set(seen(events_of(joined)))

    @given(cases(resumes=False), st.sampled_from((JOB, OTHER_JOB)))
    def test_one_job_is_one_whole_run(self, case: Case, job: str) -> None:
        async def run() -> list[Frame]:
            return await received(await case.process(), Scope(job_id=job), None, case.later)

        events = events_of(asyncio.run(run()))
        every = records(case.events, Scope(job_id=job))
        ended = any(record.ends_run for record in every)
        if every:
            assert (check_run(events).terminal is not None) is ended
        whole = [one for record in every for one in events_of(parse_frames(record.frames))]
        assert AgUiClient().apply(events) == AgUiClient().apply(whole)


def simple_run(job: str = JOB, user: str | None = OWNER) -> list[ShieldEvent]:
    return [
        shield_event("job:queued", job=job, event_id=f"{job}-1"),
        shield_event("job:started", job=job, event_id=f"{job}-2", user=user),
        shield_event("job:complete", job=job, event_id=f"{job}-3", user=user),
    ]


class TestOwnership:
    async def test_a_job_that_turns_out_to_be_mine_comes_with_its_past(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        frames = await received(process, MINE, later=stream(*simple_run()))
        assert ids_of(frames) == [str(stream_id(2)), str(stream_id(3))]
        run = check_feed(events_of(frames))[JOB]
        assert run.terminal == "RUN_FINISHED"

    async def test_of_somebody_elses_job_comes_nothing(self) -> None:
        events = stream(*simple_run(user=STRANGER), shield_event("worker.started", job=None))
        for cursor in (None, ZERO):
            process = Process(MemoryHistory())
            await process.begin(events[:2] if cursor is None else events)
            frames = await received(process, MINE, cursor, events[2:] if cursor is None else ())
            assert events_of(frames) == []


class TestForgottenJobs:
    """The process keeps the states of so many ended jobs; the rest is in the history."""

    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_fold, "_ENDED_MOST", 1)

    @pytest.mark.parametrize("cursor", [None, 0, 1, 2, 3])
    async def test_an_ended_run_is_told_and_closed_though_it_was_forgotten(
        self, cursor: int | None
    ) -> None:
        events = stream(*simple_run(), *simple_run(OTHER_JOB))
        process = Process(MemoryHistory())
        await process.begin(events)
        assert process.hub.jobs.state(JOB) is None
        after = None if cursor is None else stream_id(cursor) if cursor else ZERO
        scope = Scope(job_id=JOB)
        chunks = bytearray()
        async with asyncio.timeout(5):
            async for chunk in streams(process).open(scope, after, time.time() + AN_HOUR):
                chunks.extend(chunk)
        frames = parse_frames(bytes(chunks))
        assert check_run(events_of(frames), complete=True).outcome == "success"
        missed = [str(stream_id(n)) for n in (1, 2, 3) if cursor is None or n > cursor]
        assert ids_of(frames) == (missed[-1:] if cursor is None else missed or [str(events[2].id)])

    async def test_a_late_event_does_not_begin_the_run_again(self) -> None:
        late = shield_event("job:progress", job=JOB, event_id="late", user=OWNER)
        events = stream(*simple_run(), *simple_run(OTHER_JOB), late)
        process = Process(MemoryHistory())
        await process.begin(events[:-1])
        await process.hub.jobs.recall(process.hub.jobs.unknown_jobs(events[-1:]), events[-1].id)
        frames = await received(process, EVERYTHING, later=events[-1:])
        assert events_of(frames) == []


class TestTheEnd:
    async def open_stream(self, expires_in: float, scope: Scope = EVERYTHING) -> bytes:
        process = Process(MemoryHistory())
        await process.begin([])
        chunks = bytearray()
        async with asyncio.timeout(5):
            async for chunk in streams(process).open(scope, None, time.time() + expires_in):
                chunks.extend(chunk)
        return bytes(chunks)

    async def test_it_begins_with_the_time_to_wait_before_a_reconnect(self) -> None:
        assert (await self.open_stream(0.05)).startswith(b"retry: 2000\n\n")

    async def test_it_ends_when_the_token_does(self) -> None:
        began = time.monotonic()
        body = await self.open_stream(0.3)
        assert 0.2 < time.monotonic() - began < 3
        assert b": the token has expired\n\n" in body

    async def test_it_says_goodbye_when_the_process_drains(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        frames = await received(process, EVERYTHING, later=stream(shield_event("job:queued")))
        assert len(events_of(frames)) == 2
        last = frames[-1].retry
        assert last is not None
        assert 2000 <= last < 5000

    async def test_the_count_of_streams_is_true(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        made = streams(process)
        opened = [made.open(MINE, None, time.time() + AN_HOUR) for _ in range(3)]
        for one in opened:
            await anext(aiter(one))
        assert made.count == 3
        for one in opened:
            await cast("Any", one).aclose()
        assert made.count == 0
        assert process.hub._feeds == {}


class TestStrangeCursors:
    async def test_one_of_a_stream_that_is_gone_gives_a_notice_and_the_current_state(self) -> None:
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events[:2])
        future = StreamId(2**60, 0)
        frames = await received(process, EVERYTHING, future, events[2:])
        gap, *rest = events_of(frames)
        assert (gap["type"], gap["name"]) == ("CUSTOM", "hx.shield.gap")
        assert gap["value"] == {"after": str(future)}
        assert check_feed(rest)[JOB].terminal == "RUN_FINISHED"
        assert ids_of(frames) == [str(events[2].id)]

    async def test_one_that_another_process_was_faster_to_give_is_waited_for(self) -> None:
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events[:1])
        process.history.events = events[:2]
        frames = await received(process, EVERYTHING, events[1].id, events[1:])
        assert ids_of(frames) == [str(events[2].id)]

    async def test_waiting_for_it_ends_when_the_process_drains(self) -> None:
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events[:1])
        process.history.events = events
        frames = await received(process, EVERYTHING, events[1].id)
        assert events_of(frames) == []


async def test_a_reader_that_falls_behind_is_let_go_and_can_resume() -> None:
    history = MemoryHistory()
    process = Process(history)
    await process.begin([])
    process.hub._max_feed_bytes = 2_000
    opened = aiter(streams(process).open(EVERYTHING, None, time.time() + AN_HOUR))
    await anext(opened)
    first = asyncio.ensure_future(anext(opened))
    events = stream(*(shield_event("job:progress", {"n": n}) for n in range(50)))
    await asyncio.sleep(0)
    process.publish(events[0])
    body = bytearray(await first)
    for event in events[1:]:
        process.publish(event)
    async with asyncio.timeout(5):
        async for chunk in opened:
            body.extend(chunk)
    frames = parse_frames(bytes(body))
    assert "too slow" in frames[-1].comments[0]
    got = ids_of(frames)
    resumed = await received(process, EVERYTHING, StreamId.parse(got[-1]))
    assert got + ids_of(resumed) == [str(event.id) for event in events]
