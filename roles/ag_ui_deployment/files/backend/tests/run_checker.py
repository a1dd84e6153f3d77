"""An independent checker for AG-UI streams: finds what the official client would reject or misread.

It implements the protocol's rules and imports nothing of the backend, so that a mistake in the
backend cannot hide in its tests. It has three levels, each usable alone:

- bytes: `FrameParser` (incremental) and `parse_frames` read Server-Sent Events as the client does;
- frames: `check_frames` checks the ids of one connection;
- events: `check_run` checks one run, `check_feed` a feed that interleaves the runs of many jobs.

Every violation raises `RunViolation`, an AssertionError that names the rule, the position of the
event and the event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ag_ui.core import PROTOCOL_VERSION, Event
from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

OFFICIAL_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(Event)

FATAL_NULLS: Final = (
    "timestamp",
    "metadata",
    "code",
    "source",
    "replace",
    "input",
    "parentRunId",
)
PERCENT_KEYS: Final = ("percent", "percentComplete", "percent_complete", "progress")
TERMINAL: Final = frozenset({"RUN_FINISHED", "RUN_ERROR"})


class RunViolation(AssertionError):  # noqa: N818 - a violation of the protocol
    """A violation of a protocol rule; the message says which and where."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE frame. `data` is None for a frame with only comments or `retry`."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: int | None = None
    comments: tuple[str, ...] = ()

    @property
    def record_id(self) -> str | None:
        """The id of the record that ends with this frame.

        None for a position, which has no event.
        """
        is_position = self.data is None and self.comments in ((), ("keep-alive",))
        return None if is_position else self.id

    def json(self) -> dict[str, Any]:
        """Return the AG-UI event of the frame. Raises RunViolation if it has none."""
        if self.data is None:
            raise RunViolation(f"frame without data: {self!r}")
        try:
            event = json.loads(self.data, parse_constant=_refuse_constant)
        except ValueError as error:
            raise RunViolation(f"data is not JSON ({error}): {self.data[:200]!r}") from error
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise RunViolation(f"data is not an object with a type: {self.data[:200]!r}")
        if self.event is not None and self.event != event["type"]:
            raise RunViolation(f"event: {self.event!r} but the type is {event['type']!r}")
        return event


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class FrameParser:
    """Splits bytes into frames at empty lines only, as the official client does."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """The bytes of an incomplete frame."""
        return self._rest

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that `chunk` completes."""
        if b"\r" in chunk:
            raise RunViolation("carriage return in the stream: the client splits on \\n\\n only")
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        return [_frame(block) for block in blocks]


def parse_frames(body: bytes) -> list[Frame]:
    """Return the frames of a whole stream, without an incomplete frame at the end."""
    return FrameParser().feed(body)


def events_of(frames: Iterable[Frame]) -> list[dict[str, Any]]:
    """Return the AG-UI events of the frames that have data."""
    return [frame.json() for frame in frames if frame.data is not None]


def _frame(block: bytes) -> Frame:
    try:
        lines = block.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise RunViolation(f"frame is not UTF-8: {block[:200]!r}") from error
    values: dict[str, str] = {}
    comments: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            if line:
                comments.append(value)
            continue
        if name not in {"id", "event", "data", "retry"}:
            raise RunViolation(f"unknown field {name!r} in frame {block[:200]!r}")
        if name in values and name != "data":
            raise RunViolation(f"{name!r} twice in one frame: {block[:200]!r}")
        values[name] = f"{values[name]}\n{value}" if name in values else value
    if "retry" in values and not values["retry"].isdecimal():
        raise RunViolation(f"retry is not a number of milliseconds: {values['retry']!r}")
    if values.get("data") == "":
        raise RunViolation(f"empty data: {block[:200]!r}")
    return Frame(
        id=values.get("id"),
        event=values.get("event"),
        data=values.get("data"),
        retry=int(values["retry"]) if "retry" in values else None,
        comments=tuple(comments),
    )


def stream_position(frame_id: str) -> tuple[int, int]:
    """Parse a Redis stream id into a comparable pair."""
    milliseconds, dash, sequence = frame_id.partition("-")
    if not (dash and milliseconds.isdecimal() and sequence.isdecimal()):
        raise RunViolation(f"id {frame_id!r} is not a Redis stream id")
    return int(milliseconds), int(sequence)


def check_frames(frames: Iterable[Frame], *, after: str | None = None) -> list[dict[str, Any]]:
    """Return the events of one connection, after checking that its ids only increase.

    Args:
        frames: The frames in order of arrival.
        after: The Last-Event-ID of the request.

    Raises:
        RunViolation: An id does not increase.
    """
    newest = stream_position(after) if after else (-1, -1)
    events = []
    for number, frame in enumerate(frames):
        if frame.id is not None:
            position = stream_position(frame.id)
            if position <= newest:
                raise RunViolation(
                    f"frame {number}: id {frame.id} after {newest[0]}-{newest[1]}: "
                    "repeated or out of order"
                )
            newest = position
        if frame.data is not None:
            events.append(frame.json())
    return events


def check_event(event: Mapping[str, Any]) -> None:
    """Check a single event: its shape, its types, and nulls that crash the client."""
    kind = event.get("type")
    if not isinstance(kind, str):
        raise RunViolation(f"no type: {event!r}")
    nulls = [name for name in FATAL_NULLS if name in event and event[name] is None]
    if nulls:
        raise RunViolation(f"{kind}: {', '.join(nulls)} is null; leave it out: {event!r}")
    if "timestamp" in event and type(event["timestamp"]) is not int:
        raise RunViolation(
            f"{kind}: timestamp {event['timestamp']!r} is not an integer (milliseconds)"
        )
    if "metadata" in event and not isinstance(event["metadata"], dict):
        raise RunViolation(f"{kind}: metadata is not an object: {event!r}")
    snake = [name for name in event if "_" in name]
    if snake:
        raise RunViolation(f"{kind}: {', '.join(snake)}: names on the wire are camelCase")
    try:
        # By alias only: the Python models also accept snake_case names, which the protocol does not
        # have.
        OFFICIAL_EVENT.validate_python(dict(event), by_alias=True, by_name=False)
        json.dumps(event, allow_nan=False)
    except ValidationError as error:
        raise RunViolation(f"{kind} is no valid event: {error}") from error
    except ValueError as error:
        raise RunViolation(f"{kind} is not JSON: {error}") from error


@dataclass(slots=True)
class _Activity:
    percent: dict[str, float] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """A client's state of a run after the events so far."""

    run_id: str | None = None
    thread_id: str | None = None
    terminal: str | None = None
    outcome: str | None = None
    count: int = 0
    steps: set[str] = field(default_factory=set)
    open_texts: set[str] = field(default_factory=set)
    open_calls: set[str] = field(default_factory=set)
    open_reasoning: set[str] = field(default_factory=set)
    open_reasoning_messages: set[str] = field(default_factory=set)
    open_subagents: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    results: set[str] = field(default_factory=set)
    messages: dict[str, str] = field(default_factory=dict)
    activities: dict[str, _Activity] = field(default_factory=dict)


class RunChecker:
    """Checks one run of one connection; `feed` raises at the first event that violates a rule."""

    def __init__(self) -> None:
        self.run = Run()
        self._rules: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "RUN_STARTED": self._run_started,
            "RUN_FINISHED": self._run_finished,
            "RUN_ERROR": self._run_error,
            "STEP_STARTED": self._step_started,
            "STEP_FINISHED": self._step_finished,
            "TEXT_MESSAGE_START": self._text_start,
            "TEXT_MESSAGE_CONTENT": self._text_content,
            "TEXT_MESSAGE_END": self._text_end,
            "TOOL_CALL_START": self._call_start,
            "TOOL_CALL_ARGS": self._call_args,
            "TOOL_CALL_END": self._call_end,
            "TOOL_CALL_RESULT": self._call_result,
            "ACTIVITY_SNAPSHOT": self._activity_snapshot,
            "ACTIVITY_DELTA": self._activity_delta,
            "REASONING_START": self._reasoning_start,
            "REASONING_END": self._reasoning_end,
            "REASONING_MESSAGE_START": self._reasoning_message_start,
            "REASONING_MESSAGE_CONTENT": self._reasoning_message_content,
            "REASONING_MESSAGE_END": self._reasoning_message_end,
            "SUBAGENT_STARTED": self._subagent_started,
            "SUBAGENT_FINISHED": self._subagent_closed,
            "SUBAGENT_ERROR": self._subagent_closed,
        }

    def feed(self, event: Mapping[str, Any]) -> None:
        """Check the next event of the run. Raises RunViolation."""
        try:
            check_event(event)
            self._check_order(event["type"])
            rule = self._rules.get(event["type"])
            if rule is not None:
                rule(event)
        except RunViolation as violation:
            raise RunViolation(
                f"event {self.run.count} of run {self.run.run_id}: {violation}; "
                f"the event: {json.dumps(event, default=repr)[:500]}"
            ) from None
        self.run.count += 1

    def finish(self, *, complete: bool = False) -> Run:
        """Return the client's state of the run; with `complete`, the run must have ended."""
        if complete and self.run.terminal is None:
            raise RunViolation(f"run {self.run.run_id} has no terminal event")
        return self.run

    def _check_order(self, kind: str) -> None:
        run = self.run
        if run.terminal is not None:
            raise RunViolation(f"{kind} after the terminal {run.terminal}")
        if run.count == 0 and kind not in {"RUN_STARTED", "RUN_ERROR"}:
            raise RunViolation(f"the first event is {kind}, not RUN_STARTED or RUN_ERROR")
        if run.count > 0 and kind == "RUN_STARTED":
            raise RunViolation("RUN_STARTED while the run is active")

    def _run_started(self, event: Mapping[str, Any]) -> None:
        if event.get("protocolVersion") != PROTOCOL_VERSION:
            raise RunViolation(
                f"protocolVersion is {event.get('protocolVersion')!r}, not {PROTOCOL_VERSION!r}"
            )
        self.run.run_id = event["runId"]
        self.run.thread_id = event["threadId"]

    def _run_finished(self, event: Mapping[str, Any]) -> None:
        run = self.run
        if (event["runId"], event["threadId"]) != (run.run_id, run.thread_id):
            raise RunViolation(
                f"RUN_FINISHED of {event['threadId']}/{event['runId']} "
                f"in run {run.thread_id}/{run.run_id}"
            )
        still_open = {
            "steps": run.steps,
            "texts": run.open_texts,
            "tool calls": run.open_calls,
            "reasoning": run.open_reasoning | run.open_reasoning_messages,
            "subagents": run.open_subagents,
        }
        for what, names in still_open.items():
            if names:
                raise RunViolation(f"RUN_FINISHED with open {what}: {', '.join(sorted(names))}")
        outcome = event.get("outcome")
        run.outcome = outcome["type"] if outcome else "success"
        if run.outcome == "cancelled" and "result" in event:
            raise RunViolation("a cancelled run has no result")
        unanswered = run.calls - run.results
        if run.outcome == "success" and unanswered:
            raise RunViolation(
                "success with tool calls that never got a result, which a UI takes for "
                f"questions to the user: {', '.join(sorted(unanswered))}"
            )
        run.terminal = "RUN_FINISHED"

    def _run_error(self, _event: Mapping[str, Any]) -> None:
        self.run.terminal = self.run.outcome = "RUN_ERROR"

    def _step_started(self, event: Mapping[str, Any]) -> None:
        _open(self.run.steps, event["stepName"], "step")

    def _step_finished(self, event: Mapping[str, Any]) -> None:
        _close(self.run.steps, event["stepName"], "step")

    def _text_start(self, event: Mapping[str, Any]) -> None:
        self._new_message(event["messageId"], "text")
        _open(self.run.open_texts, event["messageId"], "text message")

    def _text_content(self, event: Mapping[str, Any]) -> None:
        _need(self.run.open_texts, event["messageId"], "text message")

    def _text_end(self, event: Mapping[str, Any]) -> None:
        _close(self.run.open_texts, event["messageId"], "text message")

    def _call_start(self, event: Mapping[str, Any]) -> None:
        call = event["toolCallId"]
        _open(self.run.open_calls, call, "tool call")
        if call in self.run.calls:
            raise RunViolation(f"tool call {call} starts again: its arguments would concatenate")
        if call in self.run.results:
            raise RunViolation(f"tool call {call} starts after its result")
        self.run.calls.add(call)

    def _call_args(self, event: Mapping[str, Any]) -> None:
        _need(self.run.open_calls, event["toolCallId"], "tool call")

    def _call_end(self, event: Mapping[str, Any]) -> None:
        _close(self.run.open_calls, event["toolCallId"], "tool call")

    def _call_result(self, event: Mapping[str, Any]) -> None:
        call, content = event["toolCallId"], event.get("content")
        if not isinstance(event.get("messageId"), str):
            raise RunViolation("TOOL_CALL_RESULT without a string messageId")
        if not isinstance(content, str | list):
            raise RunViolation("TOOL_CALL_RESULT whose content is neither a string nor parts")
        if call in self.run.open_calls:
            raise RunViolation(f"result of tool call {call} while the call is open")
        if call in self.run.results:
            raise RunViolation(f"second result of tool call {call}: it adds a message")
        self._new_message(event["messageId"], "tool result")
        self.run.results.add(call)

    def _activity_snapshot(self, event: Mapping[str, Any]) -> None:
        name, content = event["messageId"], event["content"]
        known = self.run.messages.setdefault(name, "activity")
        if known != "activity":
            raise RunViolation(f"message id {name} is already that of a {known}")
        if name in self.run.activities and event.get("replace") is False:
            raise RunViolation(f"replace: false for {name}: the client would ignore the snapshot")
        activity = self.run.activities.setdefault(name, _Activity())
        for key in PERCENT_KEYS:
            _not_back(activity.percent, key, content.get(key), name)
        totals = content.get("totals")
        for key, value in totals.items() if isinstance(totals, dict) else ():
            _not_back(activity.totals, key, value, name)

    def _activity_delta(self, event: Mapping[str, Any]) -> None:
        if event["messageId"] not in self.run.activities:
            raise RunViolation(f"delta for {event['messageId']} without a snapshot is lost")

    def _reasoning_start(self, event: Mapping[str, Any]) -> None:
        _open(self.run.open_reasoning, event["messageId"], "reasoning")

    def _reasoning_end(self, event: Mapping[str, Any]) -> None:
        _close(self.run.open_reasoning, event["messageId"], "reasoning")

    def _reasoning_message_start(self, event: Mapping[str, Any]) -> None:
        _open(self.run.open_reasoning_messages, event["messageId"], "reasoning message")

    def _reasoning_message_content(self, event: Mapping[str, Any]) -> None:
        _need(self.run.open_reasoning_messages, event["messageId"], "reasoning message")

    def _reasoning_message_end(self, event: Mapping[str, Any]) -> None:
        _close(self.run.open_reasoning_messages, event["messageId"], "reasoning message")

    def _subagent_started(self, event: Mapping[str, Any]) -> None:
        _open(self.run.open_subagents, event["subagentRunId"], "subagent")

    def _subagent_closed(self, event: Mapping[str, Any]) -> None:
        _close(self.run.open_subagents, event["subagentRunId"], "subagent")

    def _new_message(self, name: str, kind: str) -> None:
        if name in self.run.messages:
            raise RunViolation(
                f"message id {name} of a {kind} is already that of a {self.run.messages[name]}"
            )
        self.run.messages[name] = kind


def _open(names: set[str], name: str, what: str) -> None:
    if name in names:
        raise RunViolation(f"{what} {name} is opened twice")
    names.add(name)


def _need(names: set[str], name: str, what: str) -> None:
    if name not in names:
        raise RunViolation(f"{what} {name} is not open")


def _close(names: set[str], name: str, what: str) -> None:
    _need(names, name, what)
    names.remove(name)


def _not_back(newest: dict[str, float], key: str, value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    before = newest.get(key)
    if before is not None and value < before:
        raise RunViolation(f"{key} of {name} goes back from {before} to {value}")
    newest[key] = value


def check_run(events: Iterable[Mapping[str, Any]], *, complete: bool = False) -> Run:
    """Check the events of one run on one connection; with `complete`, the run must end."""
    checker = RunChecker()
    for event in events:
        checker.feed(event)
    return checker.finish(complete=complete)


def job_of(event: Mapping[str, Any]) -> str | None:
    """Return the job id of a feed's event; None for an event outside all runs."""
    metadata = event.get("metadata")
    job = metadata.get("job_id") if isinstance(metadata, dict) else None
    return job if isinstance(job, str) and job else None


def check_feed(events: Iterable[Mapping[str, Any]]) -> dict[str, Run]:
    """Check the run of each job in a feed; return the runs by job id."""
    checkers: dict[str, RunChecker] = {}
    for event in events:
        job = job_of(event)
        if job is None:
            check_event(event)
            if event["type"] not in {"CUSTOM", "RAW"}:
                raise RunViolation(f"{event['type']} belongs to no job: {event!r}")
            continue
        checkers.setdefault(job, RunChecker()).feed(event)
    return {job: checker.finish() for job, checker in checkers.items()}
