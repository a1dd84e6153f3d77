"""A run's log, and the state of a client that joins at any point."""

import asyncio
from weakref import ref

import orjson
import pytest

from src.models.event import StreamId
from src.models.protocol import ProtocolVersion
from src.services.agui import events as agui
from src.services.agui.events import Event, Stamp
from src.services.agui.sse import encode
from src.services.events.feed import BATCH_BYTES
from src.services.runs import stream_writer as run_stream_writer
from src.services.runs.ended_logs import Snapshot
from src.services.runs.log import LogRecord, RunLog
from src.services.runs.stream_writer import RunStreamWriter, WriteTimeoutError
from tests.run_checker import check_frames, check_run, events_of, parse_frames
from tests.support.agui_client import AgUiClient
from tests.support.waiting import until

NOW: Stamp = {"timestamp": 1}
RUN: list[Event] = [
    agui.run_started("thread", "run", NOW),
    agui.state_snapshot({"a": 1}, NOW),
    agui.step_started("round 1", NOW),
    *agui.reasoning_start("r1", NOW),
    agui.reasoning_content("r1", "Let me ", NOW),
    agui.reasoning_content("r1", "think", NOW),
    *agui.reasoning_end("r1", NOW),
    agui.text_start("m1", NOW),
    agui.text_content("m1", "Let me ", NOW),
    agui.text_content("m1", "see", NOW),
    agui.tool_call_start("c1", "crawl_web", "m1", NOW),
    agui.tool_call_args("c1", '{"url"', NOW),
    agui.tool_call_args("c1", ": 1}", NOW),
    agui.text_end("m1", NOW),
    agui.tool_call_end("c1", NOW),
    agui.tool_call_result("c1:result", "c1", "fine", NOW),
    agui.step_finished("round 1", NOW),
    agui.step_started("round 2", NOW),
    agui.text_start("m2", NOW),
    agui.text_content("m2", "Done", NOW),
    agui.text_end("m2", NOW),
    agui.step_finished("round 2", NOW),
    agui.run_finished("thread", "run", {}, NOW),
]


class Collected:
    """A connection that accepts all data."""

    def __init__(self) -> None:
        self.body = b""

    def write_now(self, frames: bytes) -> None:
        self.body += frames

    async def write(self, frames: bytes) -> None:
        self.body += frames


def log_of(events: list[Event]) -> RunLog:
    return RunLog(LogRecord.of(event) for event in events)


def reader_of(
    log: RunLog, cursor: StreamId | None, connection: Collected, *, is_remote: bool = False
) -> RunStreamWriter:
    return RunStreamWriter(
        log,
        cursor,
        connection,
        keep_alive_seconds=60,
        is_remote=is_remote,
        must_reconnect=lambda: False,
    )


async def read(log: RunLog, cursor: StreamId | None = None) -> bytes:
    connection = Collected()
    async with asyncio.timeout(1):
        assert await reader_of(log, cursor, connection).write()
    return connection.body


@pytest.mark.parametrize("index", range(len(RUN) + 1))
async def test_client_resuming_anywhere_reaches_the_same_state(index: int) -> None:
    whole = AgUiClient().apply(RUN)
    body = await read(log_of(RUN), StreamId(index, 0))
    events = check_frames(parse_frames(body), after=f"{index}-0" if index < len(RUN) else None)
    check_run(events)
    before = [event for event in RUN[:index] if event["type"] != "RUN_FINISHED"]
    client = AgUiClient().apply(before)
    known = {(one["id"], one["kind"]) for one in client.messages}
    # Like the official client, which does not create an existing message again.
    client.apply(event for event in events if not _opens_again(event, known))
    assert client == whole


def _opens_again(event: Event, known: set[tuple[str, str]]) -> bool:
    if event["type"] == "TEXT_MESSAGE_START":
        return (event["messageId"], "text") in known
    if event["type"] == "REASONING_MESSAGE_START":
        return (event["messageId"], "reasoning") in known
    return event["type"] == "TOOL_CALL_START" and (event["toolCallId"], "call") in known


async def test_ids_are_record_numbers_and_preludes_have_none() -> None:
    frames = parse_frames(await read(log_of(RUN), StreamId(14, 0)))
    opened = [frame.json()["type"] for frame in frames if frame.id is None]
    assert opened == ["RUN_STARTED", "STEP_STARTED", "TEXT_MESSAGE_START", "TOOL_CALL_START"]
    assert [frame.id for frame in frames[len(opened) :]] == [
        f"{number}-0" for number in range(15, len(RUN) + 1)
    ]


async def test_live_log_is_streamed_as_it_grows() -> None:
    log = log_of(RUN[:1])
    connection = Collected()
    reading = asyncio.create_task(reader_of(log, None, connection).write())
    for event in RUN[1:]:
        await asyncio.sleep(0)
        log.append([LogRecord.of(event)])
    assert await reading
    assert events_of(parse_frames(connection.body)) == RUN


@pytest.mark.parametrize("known", [0, 3])
async def test_cursor_ahead_of_another_process_is_waited_for(known: int) -> None:
    log = log_of(RUN[:known])
    connection = Collected()
    reader = reader_of(log, StreamId(5, 0), connection, is_remote=True)
    reading = asyncio.create_task(reader.write())
    await asyncio.sleep(0)
    assert not connection.body
    log.append(LogRecord.of(event) for event in RUN[known:])
    assert await reading
    frames = parse_frames(connection.body)
    assert [frame.id for frame in frames if frame.id] == [f"{n}-0" for n in range(6, len(RUN) + 1)]


@pytest.mark.parametrize(
    ("known", "cursor", "is_remote"),
    [(1, StreamId(99, 0), False), (3, StreamId(3, 1), False), (3, StreamId(3, 1), True)],
)
async def test_impossible_cursor_gives_a_gap_notice(
    known: int,
    cursor: StreamId,
    is_remote: bool,  # noqa: FBT001 - a case of the test
) -> None:
    log = log_of(RUN[:known])
    connection = Collected()
    reader = reader_of(log, cursor, connection, is_remote=is_remote)
    reading = asyncio.create_task(reader.write())
    await until(lambda: b"hx.shield.gap" in connection.body)
    log.append(LogRecord.of(event) for event in RUN[known:])
    assert await reading
    check_run(events_of(parse_frames(connection.body)))


@pytest.mark.parametrize("cursor", [StreamId(99, 0), StreamId(3, 1)])
async def test_cursor_of_another_log_restarts_with_a_gap_notice(cursor: StreamId) -> None:
    events = events_of(parse_frames(await read(log_of(RUN), cursor)))
    assert [event["type"] for event in events[:3]] == ["RUN_STARTED", "CUSTOM", "STATE_SNAPSHOT"]
    assert events[1]["name"] == "hx.shield.gap"
    check_run(events)


async def test_lost_run_consists_of_its_error() -> None:
    log = log_of([agui.run_error("lost", "run_lost", NOW)])
    events = events_of(parse_frames(await read(log, StreamId(5, 0))))
    assert [event["type"] for event in events] == ["RUN_ERROR"]


async def test_idle_run_sends_keep_alives_until_it_is_left() -> None:
    log = log_of(RUN[:1])
    connection = Collected()
    leaving = False
    reader = RunStreamWriter(
        log,
        None,
        connection,
        keep_alive_seconds=0.01,
        is_remote=True,
        must_reconnect=lambda: leaving,
    )
    reading = asyncio.create_task(reader.write())
    await until(lambda: b": keep-alive\n\n" in connection.body)
    leaving = True
    log.wake()
    assert not await reading


async def test_version_0_0_gets_a_result_for_every_call_of_a_failed_run() -> None:
    calls = ("c1", "c2", "c3")
    begun = [event for call in calls for event in agui.tool_call(call, "ask", "{}", NOW)]
    result = agui.tool_call_result("c2:result", "c2", "fine", NOW)
    log = log_of([RUN[0], *begun, result, agui.run_error("failed", "code", NOW)])
    index = len(log.records)
    frames = parse_frames(log.frames(0, index, ProtocolVersion.V0_0))
    events = events_of(frames)
    answered = [event["toolCallId"] for event in events if event["type"] == "TOOL_CALL_RESULT"]
    assert answered == ["c2", "c1", "c3"]
    assert [frame.id for frame in frames[-3:]] == [None, None, f"{index}-0"]
    assert "protocolVersion" not in events[0]
    (started,) = parse_frames(log.resume_frames(index - 1, ProtocolVersion.V0_0))
    assert "protocolVersion" not in started.json()


async def test_blocked_client_is_disconnected_after_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_stream_writer, "WRITE_TIMEOUT_SECONDS", 0.05)

    class Stuck(Collected):
        def write_now(self, _frames: bytes) -> asyncio.Future[None]:  # type: ignore[override]
            return asyncio.get_running_loop().create_future()

    async with asyncio.timeout(5):
        with pytest.raises(WriteTimeoutError):
            await reader_of(log_of(RUN), None, Stuck()).write()


async def test_snapshot_is_sent_in_pieces_and_released() -> None:
    frames = encode([agui.messages_snapshot([b'"' + b"x" * 1_000_000 + b'"'], NOW)])
    snapshot = [Snapshot(frames)]
    is_held = ref(snapshot[0])
    pieces: list[bytes] = []
    held: list[bool] = []

    class Slow(Collected):
        def write_now(self, frames: bytes) -> asyncio.Future[None]:  # type: ignore[override]
            pieces.append(frames)
            held.append(is_held() is not None)
            taken = asyncio.get_running_loop().create_future()
            taken.set_result(None)
            return taken

    reader = RunStreamWriter(
        log_of(RUN),
        None,
        Slow(),
        snapshot=snapshot,
        keep_alive_seconds=60,
        is_remote=False,
        must_reconnect=lambda: False,
    )
    assert await reader.write()
    started, *sent, rest = pieces
    assert b"".join(sent) == frames
    assert len(sent) == -(-len(frames) // BATCH_BYTES)
    assert max(map(len, sent)) == BATCH_BYTES
    assert held == [True] * (1 + len(sent)) + [False]
    assert [one.json() for one in parse_frames(started + rest)] == RUN


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_frame_is_one_line_for_any_line_splitter(separator: str) -> None:
    event = agui.text_content("m1", f"a{separator}b", NOW)
    read = LogRecord.read(orjson.dumps(event))
    for record in (LogRecord.of(event), read):
        frame = record.frame(1).decode()
        assert frame.splitlines() == frame.split("\n")[:-1]
        assert orjson.loads(record.data) == event
