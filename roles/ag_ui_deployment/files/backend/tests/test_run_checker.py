"""Each rule of the run checker accepts what the client accepts and names what it rejects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.run_checker import (
    Frame,
    FrameParser,
    RunViolation,
    check_event,
    check_feed,
    check_frames,
    check_run,
    parse_frames,
)

Event = dict[str, Any]


def started(run: str = "r", **more: Any) -> Event:
    return {
        "type": "RUN_STARTED",
        "threadId": "t",
        "runId": run,
        "protocolVersion": "1.0",
        **more,
    }


def finished(outcome: str = "success", run: str = "r", **more: Any) -> Event:
    return {
        "type": "RUN_FINISHED",
        "threadId": "t",
        "runId": run,
        "outcome": {"type": outcome},
        **more,
    }


def snapshot(name: str = "job:r", **content: Any) -> Event:
    return {
        "type": "ACTIVITY_SNAPSHOT",
        "messageId": name,
        "activityType": "JOB",
        "content": content,
    }


def call(*parts: str, name: str = "c") -> list[Event]:
    events: dict[str, Event] = {
        "start": {"type": "TOOL_CALL_START", "toolCallId": name, "toolCallName": "crawl_web"},
        "args": {"type": "TOOL_CALL_ARGS", "toolCallId": name, "delta": "{}"},
        "end": {"type": "TOOL_CALL_END", "toolCallId": name},
        "result": {
            "type": "TOOL_CALL_RESULT",
            "toolCallId": name,
            "messageId": f"res:{name}",
            "content": "{}",
        },
    }
    return [events[part] for part in parts]


def text(*parts: str, name: str = "m") -> list[Event]:
    events: dict[str, Event] = {
        "start": {"type": "TEXT_MESSAGE_START", "messageId": name, "role": "assistant"},
        "content": {"type": "TEXT_MESSAGE_CONTENT", "messageId": name, "delta": "an answer"},
        "end": {"type": "TEXT_MESSAGE_END", "messageId": name},
    }
    return [events[part] for part in parts]


def step(*parts: str, name: str = "crawl") -> list[Event]:
    return [{"type": f"STEP_{part.upper()}", "stepName": name} for part in parts]


ERROR: Event = {"type": "RUN_ERROR", "message": "the crawl failed", "code": "job_failed"}
CUSTOM: Event = {"type": "CUSTOM", "name": "shield.worker.started", "value": None}

ACCEPTED: dict[str, list[Event]] = {
    "a whole run": [
        started(timestamp=1_790_000_000_000, metadata={"job_id": "r"}),
        snapshot(percent=0),
        *step("started"),
        *call("start", "args", "end"),
        snapshot(percent=50.5, totals={"chunks": 3}),
        *call("result"),
        *step("finished"),
        *text("start", "content", "end"),
        snapshot(percent=100, totals={"chunks": 3}),
        finished(result={"pages": 3}),
    ],
    "only an error": [ERROR],
    "an error with all open": [started(), *step("started"), *text("start"), *call("start"), ERROR],
    "a cancelled run with a call unanswered": [
        started(),
        *call("start", "end"),
        finished("cancelled"),
    ],
    "a result without its start": [started(), *call("result"), finished()],
    "interleaved calls": [
        started(),
        *call("start", name="a"),
        *call("start", name="b"),
        *call("end", name="a"),
        *call("end", "result", name="b"),
        *call("result", name="a"),
        finished(),
    ],
    "overlapping steps": [
        started(),
        *step("started", name="a"),
        *step("started", name="b"),
        *step("finished", name="a"),
        *step("finished", name="b"),
        finished(),
    ],
    "a run that goes on": [started(), snapshot()],
    "nothing yet": [],
}

REJECTED: dict[str, tuple[list[Event], str]] = {
    "a bare tail": ([snapshot()], "the first event is ACTIVITY_SNAPSHOT"),
    "no protocol version": (
        [{k: v for k, v in started().items() if k != "protocolVersion"}],
        "protocolVersion is None",
    ),
    "another protocol version": ([started(protocolVersion="0.9")], "protocolVersion is '0.9'"),
    "a second start": ([started(), started()], "RUN_STARTED while the run is active"),
    "an event after the end": ([started(), finished(), snapshot()], "after the terminal"),
    "an event after the error": ([started(), ERROR, finished()], "after the terminal"),
    "a second error": ([started(), ERROR, ERROR], "after the terminal"),
    "another run's end": ([started(), finished(run="q")], "RUN_FINISHED of t/q in run t/r"),
    "an open step": ([started(), *step("started"), finished()], "open steps: crawl"),
    "an open text": ([started(), *text("start"), finished()], "open texts: m"),
    "an open call": ([started(), *call("start"), finished()], "open tool calls: c"),
    "a step that is not open": ([started(), *step("finished")], "step crawl is not open"),
    "a step twice": ([started(), *step("started", "started")], "step crawl is opened twice"),
    "arguments before the start": ([started(), *call("args")], "tool call c is not open"),
    "an end before the start": ([started(), *call("end")], "tool call c is not open"),
    "arguments after the end": (
        [started(), *call("start", "end", "args")],
        "tool call c is not open",
    ),
    "a second start of an open call": (
        [started(), *call("start", "start")],
        "tool call c is opened twice",
    ),
    "a call replayed": ([started(), *call("start", "end", "start")], "would concatenate"),
    "a start after the result": ([started(), *call("result", "start")], "after its result"),
    "a result in an open call": ([started(), *call("start", "result")], "while the call is open"),
    "a second result": ([started(), *call("result", "result")], "second result of tool call c"),
    "a result with its message id taken": (
        [started(), *call("result"), {**call("result")[0], "toolCallId": "d"}],
        "message id res:c of a tool result is already that of a tool result",
    ),
    "a result without a message id": (
        [started(), {"type": "TOOL_CALL_RESULT", "toolCallId": "c", "content": "x"}],
        "messageId",
    ),
    "a result with an object as content": (
        [started(), {**call("result")[0], "content": {"pages": 1}}],
        "content",
    ),
    "a success with an unanswered call": (
        [started(), *call("start", "end"), finished()],
        "never got a result.*: c",
    ),
    "a cancelled run with a result": (
        [started(), finished("cancelled", result=None)],
        "cancelled run has no result",
    ),
    "text that is not open": ([started(), *text("content")], "text message m is not open"),
    "text after its end": (
        [started(), *text("start", "end", "content")],
        "text message m is not open",
    ),
    "a text again": ([started(), *text("start", "end", "start")], "already that of a text"),
    "an activity under a text's id": (
        [started(), *text("start"), snapshot("m")],
        "message id m is already that of a text",
    ),
    "progress going back": (
        [started(), snapshot(percent=40), snapshot(percent=39.9)],
        "percent of job:r goes back from 40 to 39.9",
    ),
    "totals going back": (
        [
            started(),
            snapshot("rag:r", totals={"chunks": 4}),
            snapshot("rag:r", totals={"chunks": 3}),
        ],
        "chunks of rag:r goes back",
    ),
    "a snapshot that the client ignores": (
        [started(), snapshot(), {**snapshot(), "replace": False}],
        "replace: false",
    ),
    "a snapshot whose content is a list": (
        [started(), {**snapshot(), "content": []}],
        "no valid event",
    ),
    "a delta without its snapshot": (
        [
            started(),
            {
                "type": "ACTIVITY_DELTA",
                "messageId": "job:r",
                "activityType": "JOB",
                "patch": [{"op": "add", "path": "/x", "value": 1}],
            },
        ],
        "without a snapshot is lost",
    ),
    "a malformed patch": (
        [started(), {"type": "STATE_DELTA", "delta": [{"op": "put", "path": "x"}]}],
        "no valid event",
    ),
    "an invented type": ([started(), {"type": "JOB_QUEUED"}], "no valid event"),
}


@pytest.mark.parametrize("events", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts_valid_runs(events: list[Event]) -> None:
    assert check_run(events).count == len(events)


@pytest.mark.parametrize(("events", "message"), REJECTED.values(), ids=REJECTED)
def test_rejects_invalid_runs(events: list[Event], message: str) -> None:
    with pytest.raises(RunViolation, match=message):
        check_run(events)


def test_summary_of_a_run() -> None:
    run = check_run(ACCEPTED["a whole run"], complete=True)
    assert (run.run_id, run.terminal, run.outcome) == ("r", "RUN_FINISHED", "success")
    assert check_run([started(), ERROR]).outcome == "RUN_ERROR"


def test_complete_requires_a_terminal_event() -> None:
    with pytest.raises(RunViolation, match="no terminal event"):
        check_run([started()], complete=True)


@pytest.mark.parametrize(
    "name", ["timestamp", "metadata", "code", "source", "replace", "input", "parentRunId"]
)
def test_null_that_crashes_the_client_is_rejected(name: str) -> None:
    with pytest.raises(RunViolation, match=f"{name} is null"):
        check_event({**started(), name: None})


@pytest.mark.parametrize("timestamp", [1.5, 1.0, "2026-11-23T00:00:00", True])
def test_timestamp_must_be_an_integer(timestamp: object) -> None:
    with pytest.raises(RunViolation, match="is not an integer"):
        check_event({**CUSTOM, "timestamp": timestamp})


def test_names_must_be_camel_case() -> None:
    with pytest.raises(RunViolation, match="camelCase"):
        check_event({**started(), "run_id": "r"})


def test_snake_case_does_not_satisfy_a_required_name() -> None:
    with pytest.raises(RunViolation):
        check_event({"type": "STEP_STARTED", "step_name": "crawl"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_rejected(value: float) -> None:
    with pytest.raises(RunViolation, match="is not JSON"):
        check_event({**CUSTOM, "value": value})


def test_meaningful_null_is_accepted() -> None:
    check_event(CUSTOM)
    check_event(finished(result=None))


def encode(event: Event, frame_id: str | None = None) -> bytes:
    head = f"id: {frame_id}\n" if frame_id else ""
    return f"{head}event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def test_frames_are_found_for_any_chunk_boundaries() -> None:
    body = b": hello\nretry: 2000\n\n" + encode(started()) + encode(finished(), "5-0")
    whole = parse_frames(body)
    for cut in range(len(body)):
        parser = FrameParser()
        assert parser.feed(body[:cut]) + parser.feed(body[cut:]) == whole
        assert parser.rest == b""
    assert whole[0] == Frame(retry=2000, comments=("hello",))
    assert check_frames(whole) == [started(), finished()]


def test_incomplete_frame_is_omitted() -> None:
    body = encode(started()) + encode(finished())[:-1]
    assert [frame.json()["type"] for frame in parse_frames(body)] == ["RUN_STARTED"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"data: {}\r\n\r\n", "carriage return"),
        (b"data: \xff\n\n", "not UTF-8"),
        (b"data:\n\n", "empty data"),
        (b"dada: x\n\n", "unknown field"),
        (b"id: 1-0\nid: 2-0\n\n", "'id' twice"),
        (b"retry: soon\n\n", "retry is not a number"),
    ],
)
def test_malformed_frames_are_rejected(body: bytes, message: str) -> None:
    with pytest.raises(RunViolation, match=message):
        parse_frames(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"data: [DONE]\n\n", "not JSON"),
        (b"data: null\n\n", "not an object with a type"),
        (b"data: {}\n\n", "not an object with a type"),
        (b'data: {"type": "RAW", "event": NaN}\n\n', "NaN is not JSON"),
        (b"data: data: {}\n\n", "not JSON"),
        (b"data: {'type': 'RAW'}\n\n", "not JSON"),
        (b'event: CUSTOM\ndata: {"type": "RAW"}\n\n', "event: 'CUSTOM' but the type is 'RAW'"),
    ],
)
def test_malformed_data_is_rejected(body: bytes, message: str) -> None:
    with pytest.raises(RunViolation, match=message):
        check_frames(parse_frames(body))


@pytest.mark.parametrize(
    ("ids", "after", "message"),
    [
        (["5-0", "5-0"], None, "id 5-0 after 5-0"),
        (["5-1", "5-0"], None, "id 5-0 after 5-1"),
        (["10-0", "9-0"], None, "id 9-0 after 10-0"),
        (["5-0"], "5-0", "id 5-0 after 5-0"),
        (["b7e2"], None, "is not a Redis stream id"),
    ],
)
def test_ids_must_increase(ids: list[str], after: str | None, message: str) -> None:
    with pytest.raises(RunViolation, match=message):
        check_frames((Frame(id=name, data='{"type": "RAW"}') for name in ids), after=after)


def test_frames_without_id_keep_the_cursor() -> None:
    frames = [Frame(data='{"type": "RAW"}'), Frame(id="1-1"), Frame(), Frame(id="1-2")]
    assert len(check_frames(frames, after="1-0")) == 1


def test_feed_is_checked_by_job() -> None:
    def of(job: str, event: Event) -> Event:
        return {**event, "metadata": {"job_id": job}}

    runs = check_feed(
        [
            of("a", started("a")),
            CUSTOM,
            of("b", started("b")),
            {"type": "RAW", "event": {}, "source": "shield"},
            of("a", finished(run="a")),
            of("b", snapshot()),
        ]
    )
    assert {job: run.terminal for job, run in runs.items()} == {"a": "RUN_FINISHED", "b": None}
    with pytest.raises(RunViolation, match="the first event is ACTIVITY_SNAPSHOT"):
        check_feed([of("a", started("a")), of("b", snapshot())])
    with pytest.raises(RunViolation, match="belongs to no job"):
        check_feed([started()])
