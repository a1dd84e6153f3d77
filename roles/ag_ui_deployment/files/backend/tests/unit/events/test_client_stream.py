"""A client's stream with the history in memory: any cursor, any limit, any time of connection."""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ZERO, ShieldEvent, StreamId
from src.models.permissions import Role
from src.models.user import User
from src.services.auth.stream_registry import AccessChange, StreamRegistry
from src.services.auth.tokens import AccessToken
from src.services.events import client_stream, job_projector
from src.services.events.errors import DrainingError, TooManyStreamsError, TooManyStreamsOfUserError
from src.services.events.feed import FeedRecord
from src.services.events.gaps import Gap
from src.services.events.replay import EventReplay
from src.services.events.stream_server import StreamServer
from src.services.events.streams import EventStreams
from src.services.events.subscription import JobScope, Subscription
from src.utils.metrics import Metrics
from tests.run_checker import (
    Frame,
    check_feed,
    check_frames,
    check_run,
    events_of,
    job_of,
    parse_frames,
)
from tests.support.agui_client import AgUiClient
from tests.support.builders import (
    ALL_OF_RED,
    EVERYTHING,
    JOB,
    MINE,
    MINE_IN_RED,
    OWNER,
    RED,
    SCOPES,
    STRANGER,
    job_scope,
    new_projector,
    settings_of,
    shield_event,
    stream,
    stream_id,
)
from tests.support.memory_history import MemoryHistory, Process
from tests.support.strategies import faulty_history, interleaved, random_events, valid_history
from tests.support.waiting import until

if TYPE_CHECKING:
    from src.services.events.history import EventHistory

OTHER_JOB = "0c2c0d3e-7d6b-4d5f-9a38-0e6d3f8b1b22"
AN_HOUR = 3600.0


def server_of(
    process: Process, registry: StreamRegistry | None = None, **values: Any
) -> StreamServer:
    registry = registry or StreamRegistry()
    return StreamServer(process.hub, registry, Metrics(), settings_of(**values))


def streams(
    process: Process,
    *,
    server: StreamServer | None = None,
    replay: EventReplay | None = None,
    **values: Any,
) -> EventStreams:
    return EventStreams(
        server or server_of(process, **values),
        process.hub,
        replay or EventReplay(cast("EventHistory", process.history), 8),
        Metrics(),
        settings_of(**values).SSE_KEEPALIVE_SECONDS,
    )


def subscription_to(
    scope: JobScope, cursor: StreamId | None = None, *, expires_in: float = AN_HOUR, by: str = OWNER
) -> Subscription:
    user = User(id=UUID(by), email="alice@example.org", role=Role.VIEWER)
    return Subscription(scope, cursor, AccessToken(user, UUID(int=1), time.time() + expires_in))


class Client:
    """A connection that accepts all data immediately."""

    def __init__(self) -> None:
        self.body = bytearray()

    def write_now(self, frames: bytes) -> None:
        self.body.extend(frames)

    async def write(self, frames: bytes) -> None:
        self.body.extend(frames)


async def served(process: Process, subscription: Subscription, **values: Any) -> bytes:
    """Return all bytes of a stream that ends by itself."""
    client = Client()
    async with asyncio.timeout(10):
        await streams(process, **values).serve(subscription, client)
    return bytes(client.body)


async def received(
    process: Process,
    scope: JobScope,
    cursor: StreamId | None = None,
    later: Iterable[ShieldEvent] = (),
) -> list[Frame]:
    """Return the frames of a connection while `later` is published; then the process drains."""
    reading = asyncio.create_task(served(process, subscription_to(scope, cursor)))
    for event in later:
        await asyncio.sleep(0)
        process.publish(event)
    await asyncio.sleep(0)
    process.hub.drain()
    return parse_frames(await reading)


def ids_of(frames: Iterable[Frame]) -> list[str]:
    """Return the ids of the received records."""
    return [frame.record_id for frame in frames if frame.record_id is not None]


def records(events: Sequence[ShieldEvent], scope: JobScope) -> list[FeedRecord]:
    """Return the records that a client of the scope must get, computed by the projector alone."""
    return [record for record in new_projector().apply(events) if scope.shows(record)]


def seen(events: Iterable[dict[str, Any]], clients: dict[str, AgUiClient] | None = None) -> Any:
    """Return what a client sees of each job; continues from an earlier connection."""
    clients = dict(clients or {})
    for event in events:
        job = job_of(event)
        if job is not None:
            clients.setdefault(job, AgUiClient()).apply([event])
    return clients


@dataclass(frozen=True)
class Case:
    """A stream and its limits, as numbers of events."""

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
    mine = draw(valid_history() | faulty_history() | random_events())
    theirs = draw(
        valid_history(OTHER_JOB, STRANGER)
        | valid_history(OTHER_JOB, None)
        | valid_history(OTHER_JOB, OWNER)
    )
    workers = [shield_event("worker.started", job=None), shield_event("worker.stopped", job=None)]
    order = draw(st.lists(st.integers(0, 2), max_size=30))
    events = interleaved([mine, theirs, workers], order)
    connects_at = draw(st.integers(0, len(events)), label="connects at")
    began_at = draw(st.integers(0, connects_at), label="process began at")
    # A process starts after the events that Redis has trimmed; Redis trims more once they are
    # stored.
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
    @given(cases(), st.sampled_from(SCOPES))
    def test_client_receives_exactly_the_records_after_its_cursor(
        self, case: Case, scope: JobScope
    ) -> None:
        async def run() -> list[Frame]:
            return await received(await case.process(), scope, case.last_id, case.later)

        frames = asyncio.run(run())
        check_frames(frames)
        check_feed(events_of(frames))
        cursor = case.last_id or ZERO
        expected = [record for record in records(case.events, scope) if record.id > cursor]
        assert ids_of(frames) == [str(record.id) for record in expected]
        expected_frames = [frame for record in expected for frame in parse_frames(record.frames)]
        assert [frame for frame in frames if frame in expected_frames] == expected_frames

    @given(cases(), st.sampled_from(SCOPES))
    def test_resumed_client_has_the_state_of_an_uninterrupted_one(
        self, case: Case, scope: JobScope
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
    def test_stream_of_one_job(self, case: Case, job: str) -> None:
        async def run() -> list[Frame]:
            return await received(await case.process(), job_scope(job), case.last_id, case.later)

        frames = asyncio.run(run())
        check_frames(frames)
        cursor = case.last_id or ZERO
        every = records(case.events, job_scope(job))
        missed = [str(record.id) for record in every if record.id > cursor]
        ended_before = any(record.ends_run and record.id <= cursor for record in every)
        # A client that has the end already gets it again, since its run has no other event.
        assert ids_of(frames) == (missed or [str(e.id) for e in every if ended_before][-1:])
        if frames:
            run_of_client = check_run(events_of(frames))
            assert (run_of_client.terminal is not None) is any(one.ends_run for one in every)


class TestJoining:
    @given(cases(resumes=False), st.sampled_from(SCOPES))
    def test_client_receives_current_state_and_then_live_records(
        self, case: Case, scope: JobScope
    ) -> None:
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
    def test_stream_of_one_job_is_a_complete_run(self, case: Case, job: str) -> None:
        async def run() -> list[Frame]:
            return await received(await case.process(), job_scope(job), None, case.later)

        events = events_of(asyncio.run(run()))
        every = records(case.events, job_scope(job))
        ended = any(record.ends_run for record in every)
        if every:
            assert (check_run(events).terminal is not None) is ended
        whole = [one for record in every for one in events_of(parse_frames(record.frames))]
        assert AgUiClient().apply(events) == AgUiClient().apply(whole)


class TestPosition:
    """The id up to which a client has everything, whether or not it received frames for it."""

    @given(cases() | cases(resumes=False), st.sampled_from((*SCOPES, job_scope(JOB))))
    def test_position_is_sent_before_the_first_event(self, case: Case, scope: JobScope) -> None:
        cursor = case.last_id

        async def run() -> tuple[list[Frame], StreamId]:
            process = await case.process()
            reached = process.hub.last_id
            return await received(process, scope, cursor, case.later), reached

        frames, reached = asyncio.run(run())
        check_frames(frames, after=str(cursor) if scope.job_id is None and cursor else None)
        positions = [StreamId.parse(frame.id) for frame in frames if frame.id]
        ended = any(record.ends_run for record in records(case.events[: case.connects_at], scope))
        if not (scope.job_id and ended):
            assert max([cursor or ZERO, *(one for one in positions if one <= reached)]) == reached
            assert positions or cursor

    @given(cases() | cases(resumes=False), st.sampled_from((*SCOPES, job_scope(JOB))), st.data())
    def test_client_interrupted_anywhere_resumes_to_the_same_state(
        self, case: Case, scope: JobScope, data: st.DataObject
    ) -> None:
        """A client keeps its state at the last id, and starts without state if it has none."""
        first = case.last_id

        async def held(cursor: StreamId | None) -> dict[str, AgUiClient]:
            if cursor is None:
                return {}
            until_then = [event for event in case.events if event.id <= cursor]
            whole = Process(MemoryHistory())
            await whole.begin([])
            return seen(events_of(await received(whole, scope, later=until_then)))  # type: ignore[no-any-return]

        async def run() -> None:
            before = await held(first)
            whole = await received(await case.process(), scope, first, case.later)
            came = whole[: data.draw(st.integers(0, len(whole)), label="cut after")]
            last = next((n for n, frame in reversed([*enumerate(came)]) if frame.id), None)
            if last is None and first is None:
                return
            kept = [] if last is None else came[: last + 1]
            cursor = first if last is None else StreamId.parse(kept[-1].id or "")
            later = replace(case, connects_at=len(case.events))
            rest = await received(await later.process(), scope, cursor)
            expected = seen(events_of(whole), before)
            assert seen(events_of(rest), seen(events_of(kept), before)) == expected

        asyncio.run(run())

    async def test_keep_alive_has_the_position_if_it_has_advanced(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        reading = asyncio.create_task(
            served(process, subscription_to(MINE, expires_in=3.5), SSE_KEEPALIVE_SECONDS=1)
        )
        await asyncio.sleep(0)
        events = stream(*simple_run(user=STRANGER))
        process.publish(*events)
        frames = parse_frames(await reading)
        assert events_of(frames) == []
        keep_alives = [(frame.comments, frame.id) for frame in frames[1:-1]]
        assert keep_alives == [
            ((), str(ZERO)),
            (("keep-alive",), str(events[-1].id)),
            (("keep-alive",), None),
            (("keep-alive",), None),
        ]

    async def test_position_after_a_gap_may_be_below_the_cursor(self) -> None:
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events)
        frames = await received(process, EVERYTHING, StreamId(2**60, 0))
        assert [frame.id for frame in frames if frame.id] == [str(events[-1].id)]

    async def test_position_after_a_gap_is_not_repeated(self) -> None:
        """The stream is gone, and this process had read it as far as the client."""
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events)
        last = events[-1].id
        process.hub.publish_gap(Gap("unknown", last, last.next()))
        frames = await received(process, EVERYTHING, last)
        assert [event["name"] for event in events_of(frames)] == ["hx.shield.gap"]
        assert [frame.id for frame in frames if frame.id] == []

    @pytest.mark.parametrize("begun", [0, 1])
    async def test_position_of_an_empty_stream_is_no_gap(self, begun: int) -> None:
        """It derives from Redis's clock: no entry has it, at any instance."""
        events = stream(*simple_run())
        border = events[0].id.previous()
        process = Process(MemoryHistory())
        await process.begin(events[:begun])
        frames = await received(process, EVERYTHING, border, events[begun:])
        assert ids_of(frames) == [str(event.id) for event in events]
        assert check_feed(events_of(frames))[JOB].terminal == "RUN_FINISHED"


def simple_run(job: str = JOB, user: str | None = OWNER) -> list[ShieldEvent]:
    return [
        shield_event("job:queued", job=job, event_id=f"{job}-1"),
        shield_event("job:started", job=job, event_id=f"{job}-2", user=user),
        shield_event("job:complete", job=job, event_id=f"{job}-3", user=user),
    ]


def moving_run() -> list[ShieldEvent]:
    """A job whose third of four events moves it to the workspace red."""
    queued, started, complete = simple_run()
    progress = shield_event("job:progress", event_id="moves", workspace=RED)
    return stream(replace(queued, metadata=started.metadata), started, progress, complete)


class TestOwnership:
    async def test_job_that_becomes_mine_is_sent_with_its_history(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        frames = await received(process, MINE, later=stream(*simple_run()))
        assert ids_of(frames) == [str(stream_id(2)), str(stream_id(3))]
        run = check_feed(events_of(frames))[JOB]
        assert run.terminal == "RUN_FINISHED"

    async def test_job_that_moves_to_my_workspace_is_sent_with_its_history(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        frames = await received(process, ALL_OF_RED, later=moving_run())
        assert ids_of(frames) == [str(stream_id(3)), str(stream_id(4))]
        assert check_feed(events_of(frames))[JOB].terminal == "RUN_FINISHED"

    @pytest.mark.parametrize("cursor", [None, ZERO, stream_id(1), stream_id(3)])
    async def test_feed_stops_sending_a_job_that_moves_away(self, cursor: StreamId | None) -> None:
        events = moving_run()
        for begun in range(5):
            if cursor is not None and cursor > stream_id(begun):
                continue
            process = Process(MemoryHistory())
            await process.begin(events[:begun])
            frames = await received(process, MINE, cursor, events[begun:])
            after = stream_id(begun) if cursor is None else cursor
            assert ids_of(frames) == [str(stream_id(n)) for n in (1, 2) if stream_id(n) > after]
            if begun > 2 and cursor in (None, stream_id(3)):
                assert events_of(frames) == []

    @pytest.mark.parametrize("begun", range(5))
    async def test_stream_of_a_job_that_moves_away_ends(self, begun: int) -> None:
        events = moving_run()
        process = Process(MemoryHistory())
        await process.begin(events[:begun])
        scope = MINE._replace(job_id=JOB)
        reading = asyncio.create_task(served(process, subscription_to(scope)))
        for event in events[begun:]:
            await asyncio.sleep(0)
            process.publish(event)
        frames = parse_frames(await reading)
        assert frames[-1].comments == ("this job is not yours to see any more",)
        assert ids_of(frames) == [str(stream_id(n)) for n in (1, 2) if n > begun]
        other = await received(process, MINE_IN_RED._replace(job_id=JOB))
        assert check_run(events_of(other), complete=True).outcome == "success"

    async def test_shared_feed_ends_only_for_clients_that_lost_access(self) -> None:
        events = moving_run()
        process = Process(MemoryHistory())
        await process.begin(events[:1])
        scopes = [one._replace(job_id=JOB) for one in (EVERYTHING, MINE, MINE_IN_RED)]
        reading = [asyncio.create_task(served(process, subscription_to(scope))) for scope in scopes]
        await asyncio.sleep(0)
        assert len(process.hub.feeds) == 1
        process.publish(*events[1:])
        bodies = await asyncio.gather(*reading)
        last = [ids_of(parse_frames(body))[-1] for body in bodies]
        assert last == [str(stream_id(n)) for n in (4, 2, 4)]

    async def test_jobs_of_other_users_are_not_sent(self) -> None:
        events = stream(*simple_run(user=STRANGER), shield_event("worker.started", job=None))
        for cursor in (None, ZERO):
            process = Process(MemoryHistory())
            await process.begin(events[:2] if cursor is None else events)
            frames = await received(process, MINE, cursor, events[2:] if cursor is None else ())
            assert events_of(frames) == []


class TestEvictedJobs:
    """The process keeps the states of a limited number of ended jobs; the history has the rest."""

    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(job_projector, "_ENDED_MAX", 1)

    @pytest.mark.parametrize("cursor", [None, 0, 1, 2, 3])
    async def test_ended_run_is_replayed_and_closed(self, cursor: int | None) -> None:
        events = stream(*simple_run(), *simple_run(OTHER_JOB))
        process = Process(MemoryHistory())
        await process.begin(events)
        assert process.hub.jobs.state(JOB) is None
        after = None if cursor is None else stream_id(cursor) if cursor else ZERO
        scope = job_scope(JOB)
        frames = parse_frames(await served(process, subscription_to(scope, after)))
        assert check_run(events_of(frames), complete=True).outcome == "success"
        missed = [str(stream_id(n)) for n in (1, 2, 3) if cursor is None or n > cursor]
        assert ids_of(frames) == (missed[-1:] if cursor is None else missed or [str(events[2].id)])

    async def test_long_run_is_replayed_to_its_last_event(self) -> None:
        long = [
            shield_event("job:queued", event_id="first", user=OWNER),
            *(shield_event("rag:chunk_processed", event_id=f"chunk-{n}") for n in range(300)),
            shield_event("job:complete", event_id="last"),
        ]
        events = stream(*long, *simple_run(OTHER_JOB))
        process = Process(MemoryHistory(page=100))
        await process.begin(events)
        assert process.hub.jobs.state(JOB) is None
        frames = parse_frames(await served(process, subscription_to(job_scope(JOB))))
        run = check_run(events_of(frames), complete=True)
        assert run.outcome == "success"
        client = AgUiClient().apply(events_of(frames))
        assert client.activity(f"rag:{JOB}")["chunks_processed"] == 300

    async def test_late_event_does_not_restart_an_ended_run(self) -> None:
        late = shield_event("job:progress", job=JOB, event_id="late", user=OWNER)
        events = stream(*simple_run(), *simple_run(OTHER_JOB), late)
        process = Process(MemoryHistory())
        await process.begin(events[:-1])
        await process.hub.jobs.rehydrate(process.hub.jobs.unknown_jobs(events[-1:]), events[-1].id)
        frames = await received(process, EVERYTHING, later=events[-1:])
        assert events_of(frames) == []

    async def test_rehydrated_job_that_ends_is_sent_with_its_history(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(job_projector, "_ACTIVE_MAX", 1)
        queued, started, complete = simple_run()
        process = Process(MemoryHistory())
        *before, end = stream(queued, started, shield_event(job=OTHER_JOB, user=OWNER), complete)
        await process.begin(before)
        reading = asyncio.create_task(served(process, subscription_to(MINE)))
        await asyncio.sleep(0)
        await process.publish_like_the_tailer(end)
        process.hub.drain()
        events = events_of(parse_frames(await reading))
        assert check_feed(events)[JOB].terminal == "RUN_FINISHED"

    async def test_rehydrated_ended_job_is_not_sent_again(self) -> None:
        process = Process(MemoryHistory())
        await process.begin(stream(*simple_run(), *simple_run(OTHER_JOB)))
        reading = asyncio.create_task(served(process, subscription_to(EVERYTHING)))
        await asyncio.sleep(0)
        await process.publish_like_the_tailer(
            replace(shield_event("job:accepted", user=STRANGER), id=stream_id(7))
        )
        await asyncio.sleep(0)
        process.hub.drain()
        assert events_of(parse_frames(await reading)) == []

    @pytest.mark.parametrize(
        ("joins_after", "cursor"), [*((n, None) for n in range(5)), (4, stream_id(4))]
    )
    async def test_rehydrated_active_job_is_sent_to_clients_that_do_not_know_it(
        self, monkeypatch: pytest.MonkeyPatch, joins_after: int, cursor: StreamId | None
    ) -> None:
        monkeypatch.setattr(job_projector, "_ACTIVE_MAX", 1)
        call = {"tool_call_id": "c", "tool_name": "crawl_web"}
        events = stream(
            shield_event("job:queued", user=OWNER, event_id="1"),
            shield_event("tool:start", call, event_id="2"),
            shield_event("job:progress", {"percent": 10}, event_id="3"),
            shield_event("job:queued", job=OTHER_JOB, user=OWNER, event_id="4"),
            shield_event("job:progress", {"percent": 10}, event_id="3"),
            *(shield_event("job:progress", {"percent": n}, event_id=f"{n}") for n in (20, 30)),
        )
        process = Process(MemoryHistory())
        await process.begin([])
        await process.publish_like_the_tailer(*events[:joins_after])
        reading = asyncio.create_task(served(process, subscription_to(MINE, cursor)))
        for event in events[joins_after:]:
            await asyncio.sleep(0)
            await process.publish_like_the_tailer(event)
        await asyncio.sleep(0)
        process.hub.drain()
        output = events_of(parse_frames(await reading))
        check_feed(output)
        client = seen(output)[JOB]
        assert client.activity(f"job:{JOB}")["percent"] == 30
        calls = [event for event in output if event["type"] == "TOOL_CALL_START"]
        assert len(calls) == (1 if cursor is None else 0)


class TestStreamEnd:
    async def open_stream(self, expires_in: float, scope: JobScope = EVERYTHING) -> bytes:
        process = Process(MemoryHistory())
        await process.begin([])
        return await served(process, subscription_to(scope, expires_in=expires_in))

    async def test_first_frame_has_the_retry_time(self) -> None:
        (retry, *_) = parse_frames(await self.open_stream(0.05))
        assert retry.retry is not None
        assert 2000 <= retry.retry <= 3000

    async def test_stream_ends_when_the_token_expires(self) -> None:
        began = time.monotonic()
        body = await self.open_stream(0.3)
        assert 0.2 < time.monotonic() - began < 3
        assert b": the token has expired\n\n" in body

    async def test_drained_stream_ends_with_a_retry_time(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        frames = await received(process, EVERYTHING, later=stream(shield_event("job:queued")))
        assert len(events_of(frames)) == 2
        last = frames[-1].retry
        assert last is not None
        assert 2000 <= last < 5000

    async def test_change_of_permissions_asks_for_reconnect_without_id(self) -> None:
        process = Process(MemoryHistory())
        call = {"tool_call_id": "c", "tool_name": "crawl_web"}
        await process.begin(stream(shield_event("tool:start", call, workspace=RED)))
        opened, client = StreamRegistry(), Client()
        event_streams = streams(process, server=server_of(process, opened))
        subscription = subscription_to(MINE)
        serving = asyncio.create_task(event_streams.serve(subscription, client))
        await until(lambda: parse_frames(bytes(client.body))[1:])
        access = subscription.access
        opened.mark_outdated(AccessChange(access.user.id, None, None, ends_sessions=False))
        opened.verify(access.session_id, access.user.model_copy(update={"role": Role.CONTRIBUTOR}))
        await serving
        frames = parse_frames(bytes(client.body))
        assert events_of(frames) == []
        assert frames[-1].comments == ("your permissions have changed: reconnect without an id",)
        output = events_of(await received(process, ALL_OF_RED))
        assert {"TOOL_CALL_START", "ACTIVITY_SNAPSHOT"} <= {event["type"] for event in output}

    async def test_stream_limits_and_count(self) -> None:
        process = Process(MemoryHistory())
        await process.begin([])
        server = server_of(process, STREAMS_MAX=3, STREAMS_PER_USER=2)
        event_streams = streams(process, server=server)

        mine, theirs = subscription_to(MINE), subscription_to(EVERYTHING, by=STRANGER)
        opened = [asyncio.create_task(event_streams.serve(mine, Client())) for _ in range(2)]
        await until(lambda: server.count == 2)
        with pytest.raises(TooManyStreamsOfUserError):
            server.check(mine.access.user.id)
        server.check(theirs.access.user.id)
        opened.append(asyncio.create_task(event_streams.serve(theirs, Client())))
        await until(lambda: server.count == 3)
        with pytest.raises(TooManyStreamsError):
            server.check(theirs.access.user.id)
        for one in opened:
            one.cancel()
        await asyncio.gather(*opened, return_exceptions=True)
        assert server.count == 0
        server.check(mine.access.user.id)
        assert len(process.hub.feeds) == 0
        process.hub.drain()
        with pytest.raises(DrainingError):
            server.check(mine.access.user.id)


class TestUnknownCursors:
    async def test_cursor_of_a_deleted_stream_gives_a_gap_notice_and_the_state(self) -> None:
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events[:2])
        future = StreamId(2**60, 0)
        frames = await received(process, EVERYTHING, future, events[2:])
        gap, *rest = events_of(frames)
        assert (gap["type"], gap["name"]) == ("CUSTOM", "hx.shield.gap")
        assert gap["value"]["after"] == str(future)
        assert gap["value"]["reason"] == "unknown"
        assert check_feed(rest)[JOB].terminal == "RUN_FINISHED"
        assert ids_of(frames) == [str(events[2].id)]

    async def test_cursor_ahead_of_this_process_is_waited_for(self) -> None:
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events[:1])
        process.history.events = events[:2]
        frames = await received(process, EVERYTHING, events[1].id, events[1:])
        assert ids_of(frames) == [str(events[2].id)]

    async def test_wait_for_a_cursor_ends_when_the_process_drains(self) -> None:
        events = stream(*simple_run())
        process = Process(MemoryHistory())
        await process.begin(events[:1])
        process.history.events = events
        frames = await received(process, EVERYTHING, events[1].id)
        assert events_of(frames) == []


class SlowClient:
    """A connection that accepts a write only when told to."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.takes = asyncio.Semaphore(0)

    def write_now(self, frames: bytes) -> Awaitable[None]:
        return self.write(frames)

    async def write(self, frames: bytes) -> None:
        await self.takes.acquire()
        self.body.extend(frames)

    @property
    def frames(self) -> list[Frame]:
        return parse_frames(bytes(self.body))


@pytest.mark.parametrize(
    "bound", [{"CLIENT_BUFFER_BYTES": 65_536}, {"CLIENT_BUFFER_EVENTS": 20}], ids=str
)
async def test_client_beyond_a_feed_limit_is_disconnected_and_can_resume(
    bound: dict[str, int],
) -> None:
    process = Process(MemoryHistory(), **bound)
    await process.begin([])
    client = SlowClient()
    serving = asyncio.create_task(streams(process).serve(subscription_to(EVERYTHING), client))
    events = stream(*(shield_event("job:progress", {"n": n, "x": "x" * 999}) for n in range(120)))
    for _ in range(2):
        client.takes.release()
    await until(lambda: client.frames and client.frames[-1].id)
    process.publish(events[0])
    client.takes.release()
    await until(lambda: ids_of(client.frames) == [str(events[0].id)])
    for event in events[1:]:
        process.publish(event)
    for _ in range(5):
        client.takes.release()
    async with asyncio.timeout(5):
        await serving
    assert "too slow" in client.frames[-1].comments[0]
    got = ids_of(client.frames)
    assert 0 < len(got) < len(events)
    resumed = await received(process, EVERYTHING, StreamId.parse(got[-1]))
    assert got + ids_of(resumed) == [str(event.id) for event in events]


async def test_blocked_client_is_disconnected_at_the_feed_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_stream, "_TIMER_SECONDS", 0.02)
    process = Process(MemoryHistory(), CLIENT_BUFFER_EVENTS=20)
    await process.begin([])
    client = SlowClient()
    serving = asyncio.create_task(streams(process).serve(subscription_to(EVERYTHING), client))
    client.takes.release()
    await until(lambda: process.hub.feeds)
    for event in stream(*(shield_event("job:progress") for _ in range(50))):
        process.publish(event)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await serving
    assert len(process.hub.feeds) == 0


@pytest.mark.parametrize("published", [0, 1])
async def test_blocked_client_is_disconnected_after_a_timeout(
    monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    """It is far from the feed's limit but occupies a connection."""
    monkeypatch.setattr(client_stream, "_TIMER_SECONDS", 0.01)
    monkeypatch.setattr(client_stream, "WRITE_TIMEOUT_SECONDS", 0.05)
    process = Process(MemoryHistory())
    await process.begin([])
    client = SlowClient()
    serving = asyncio.create_task(streams(process).serve(subscription_to(EVERYTHING), client))
    for _ in range(1 + published):
        client.takes.release()
    await until(lambda: len(client.frames) == 1 + published)
    process.publish(*stream(shield_event("job:progress"))[:published])
    async with asyncio.timeout(5):
        await serving
    assert len(process.hub.feeds) == 0


async def test_job_history_waits_for_a_replay_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_projector, "_ENDED_MAX", 1)
    events = stream(*simple_run(), *simple_run(OTHER_JOB))
    process = Process(MemoryHistory())
    await process.begin(events)
    replay = EventReplay(cast("EventHistory", process.history), 1)
    event_streams = streams(process, replay=replay)
    client = Client()
    async with replay.slot():
        serving = asyncio.create_task(event_streams.serve(subscription_to(job_scope(JOB)), client))
        for _ in range(100):
            await asyncio.sleep(0)
        assert events_of(parse_frames(bytes(client.body))) == []
    async with asyncio.timeout(5):
        await serving
    check_run(events_of(parse_frames(bytes(client.body))), complete=True)


async def test_idle_stream_sends_keep_alives() -> None:
    process = Process(MemoryHistory())
    await process.begin([])
    body = await served(
        process, subscription_to(EVERYTHING, expires_in=2.5), SSE_KEEPALIVE_SECONDS=1
    )
    assert [frame.comments for frame in parse_frames(body)][2:] == [
        ("keep-alive",),
        ("keep-alive",),
        ("the token has expired",),
    ]


async def test_retry_times_at_shutdown_are_spread() -> None:
    process = Process(MemoryHistory())
    await process.begin([])
    server = server_of(process, STREAMS_PER_USER=5000)
    event_streams = streams(process, server=server)
    clients = [Client() for _ in range(2000)]
    serving = [
        asyncio.create_task(event_streams.serve(subscription_to(MINE), client))
        for client in clients
    ]
    await until(lambda: server.count == len(clients))
    process.hub.drain()
    await asyncio.gather(*serving)
    waits = [parse_frames(bytes(client.body))[-1].retry or 0 for client in clients]
    assert min(waits) >= 2000
    assert max(waits) - min(waits) > 2000
    assert len(set(waits)) > len(waits) / 4
