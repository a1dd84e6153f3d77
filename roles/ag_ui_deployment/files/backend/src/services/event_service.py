"""Transforms the Shield events of one job into one AG-UI 1.0 run.

`fold(state, event)` is pure: the same history gives the same frames in every process, so a client
can resume at another instance. The states are immutable and share structure, so keeping one state
per event costs a pointer.

Invariants, even if events are duplicated, reordered or missing:

- `RUN_STARTED` comes first, once. The terminal event comes last, once.
- A tool call or text that is opened is closed by the frames of the same Shield event.
- Progress and status never decrease. A repeated `event_id` changes nothing.
- The `data` of an accepted Shield event is in one of the frames made from it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, cast
from uuid import UUID

import orjson
from immutables import Map

from src.models.event import SUBMISSION, ShieldEvent, StreamId
from src.models.job import ENDED, JobStatus, displayed_percent
from src.services.agui.events import (
    Event,
    Stamp,
    activity_delta,
    activity_snapshot,
    custom,
    is_activity_snapshot,
    raw,
    run_cancelled,
    run_error,
    run_finished,
    run_started,
    text_message,
    tool_call,
    tool_call_result,
)
from src.services.shield.event_types import (
    END_STATUS,
    LIFECYCLE_STATUS,
    RAG_TOTALS,
    TOOL_TYPES,
    amount,
    answer_of,
    chunk_counts,
    error_code,
    error_message,
    is_worker_event,
    kind_of,
    percent_of,
    tool_arguments,
    tool_call_id,
    tool_name,
    tool_phase,
    tool_result,
)

VENDOR = "hx.shield"
SOURCE = "shield"
# A producer retries XADD within seconds. Two generations of this many ids are kept.
_GENERATION_SIZE = 4096
# Bytes by which a JSON Patch operation is longer than the member in a snapshot, and the minimum
# bytes of a member besides its name and text.
_OPERATION_BYTES = 29
_MEMBER_BYTES = 5

DropReason = Literal["duplicate", "after_result", "after_end"]
Number = TypeVar("Number", int, float)


class RecentIds(NamedTuple):
    """The ids of recent events, bounded to the current generation and the one before it.

    All versions of a generation share one dictionary that maps each id to its number. A version
    contains the ids with a number below `size`. A version therefore costs one tuple; a persistent
    map would copy a path for each id.
    """

    current: dict[str, int]
    size: int = 0
    previous: Collection[str] = ()

    def __contains__(self, event_id: object) -> bool:
        number = self.current.get(cast("str", event_id))
        return (number is not None and number < self.size) or event_id in self.previous

    def add(self, event_id: str) -> "RecentIds":
        """Returns a version that also contains this id."""
        current, size = self.current, self.size
        if len(current) > size:
            # Another version has already added ids to the shared dictionary: copy.
            current = {known_id: number for known_id, number in current.items() if number < size}
        current[event_id] = size
        if size + 1 < _GENERATION_SIZE:
            return RecentIds(current, size + 1, self.previous)
        return RecentIds({}, 0, current)


_NONE_SEEN = RecentIds({})


class Item(NamedTuple):
    """The latest events of one message of the run. `order` is its position by first appearance."""

    order: int
    events: tuple[Event, ...]


class ToolCallState(NamedTuple):
    name: str
    status: Literal["running", "completed", "failed"]


class JobState(NamedTuple):
    """The state of one job: everything that the frames of its next event depend on.

    Attributes:
        run: The `RUN_STARTED` event of the job.
        first_id: The stream id of the event that started the run.
        percent: Progress from 0 to 100.
        totals: Cumulative counts of the `rag:*` events.
        calls: Tool calls by call id.
        items: Messages of the run by message key, for clients that join later.
        seen: The ids of recent events, to detect duplicates. Empty after the end of the job.
        terminal: The event that ended the run.
        terminal_id: The stream id of the Shield event that ended the run.
    """

    job_id: str
    run: Event
    first_id: StreamId
    workspace: str | None
    owner: UUID | None = None
    kind: str | None = None
    status: JobStatus = JobStatus.QUEUED
    percent: float | None = None
    chunks_processed: int | None = None
    chunks_total: int | None = None
    totals: Map[str, int] = Map()
    calls: Map[str, ToolCallState] = Map()
    items: Map[str, Item] = Map()
    seen: RecentIds = _NONE_SEEN
    terminal: Event | None = None
    terminal_id: StreamId | None = None

    @property
    def ended(self) -> bool:
        return self.terminal is not None


class FoldResult(NamedTuple):
    """The state after an event, and its AG-UI events or the reason why there are none.

    Only a submission after the end of its job has neither: nothing may follow the end of a run, but
    from then on the job has an owner.
    """

    state: JobState | None
    events: Sequence[Event]
    dropped: DropReason | None = None


def fold(state: JobState | None, event: ShieldEvent) -> FoldResult:
    """Applies one event to the state of its job.

    Args:
        state: The state before the event; None before the first event of the job.
        event: A Shield event of this job. An event without a job or of a worker is transformed
            outside all runs and leaves the state unchanged.

    Returns:
        The next state and the AG-UI events to send, in order.
    """
    if event.job_id is None or is_worker_event(event.type):
        return FoldResult(state, (_outside_runs(event),))
    before = state or _initial_state(event, event.job_id)
    if event.event_id in before.seen:
        return FoldResult(state, (), "duplicate")
    if before.ended:
        updated = before._replace(**_ownership(before, event)._asdict())
        return FoldResult(state, (), "after_end") if updated == before else FoldResult(updated, ())
    step = _FoldStep(before, event)
    if state is None:
        step.emit(before.run)
    _handler(event.type)(step)
    if step.dropped:
        # A dropped event sends no frames, so it must not change the owner or workspace: a client
        # that can see the job from then on would not get the run so far.
        return FoldResult(before._replace(seen=step.seen), (), step.dropped)
    return FoldResult(step.state(), step.events)


def run_snapshot(state: JobState) -> Iterator[Event]:
    """Yields the run so far, for a client that has none of it."""
    yield state.run
    for item in _ordered_items(state):
        yield from item.events


def resume_snapshot(state: JobState) -> Iterator[Event]:
    """Yields `RUN_STARTED` and the activities, for a client that resumes.

    Tool calls and texts are omitted, because the client would append them again.
    """
    yield state.run
    for item in _ordered_items(state):
        yield from filter(is_activity_snapshot, item.events)


def _ordered_items(state: JobState) -> list[Item]:
    return sorted(state.items.values(), key=lambda item: item.order)


def _initial_state(event: ShieldEvent, job_id: str) -> JobState:
    thread = event.metadata.get("thread_id")
    thread_id = thread if isinstance(thread, str) and thread else event.workspace or job_id
    return JobState(
        job_id=job_id,
        run=run_started(thread_id, job_id, _stamp(event, event.workspace)),
        first_id=event.id,
        workspace=event.workspace,
        seen=RecentIds({}),
    )


class _Ownership(NamedTuple):
    """The owner and the workspace of a job."""

    owner: UUID | None
    workspace: str | None


def _ownership(before: JobState, event: ShieldEvent) -> _Ownership:
    """Returns the owner and workspace after an event.

    The first event that names them decides. A submission overrides the others.
    """
    if event.type == SUBMISSION:
        return _Ownership(event.user_id or before.owner, event.workspace or before.workspace)
    if before.ended:
        return _Ownership(before.owner, before.workspace)
    return _Ownership(before.owner or event.user_id, before.workspace or event.workspace)


def _stamp(event: ShieldEvent, workspace: str | None) -> Stamp:
    metadata = {"job_id": event.job_id}
    if workspace is not None:
        metadata["workspace"] = workspace
    metadata["shield_type"] = event.type
    metadata["event_id"] = event.event_id
    return {"timestamp": event.timestamp, "metadata": metadata}


def _outside_runs(event: ShieldEvent) -> Event:
    # Omits the job id: a client that sorts the feed by job must not find this event in a run.
    metadata = {"shield_type": event.type, "event_id": event.event_id}
    if event.workspace is not None:
        metadata["workspace"] = event.workspace
    stamp: Stamp = {"timestamp": event.timestamp, "metadata": metadata}
    if is_worker_event(event.type):
        value = {"data": event.data, "job_id": event.job_id}
        return custom(f"{VENDOR}.{event.type}", value, stamp)
    return _raw(event, stamp)


def _raw(event: ShieldEvent, stamp: Stamp) -> Event:
    source = {
        "type": event.type,
        "event_id": event.event_id,
        "data": event.data,
        "metadata": event.metadata,
    }
    return raw(source, SOURCE, stamp)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


class _FoldStep:
    """The draft of the next state and the events of one call of fold()."""

    def __init__(self, before: JobState, event: ShieldEvent) -> None:
        self.event = event
        self.events: list[Event] = []
        self.dropped: DropReason | None = None
        self._before = before
        self.seen = before.seen.add(event.event_id)
        self._owner, self._workspace = _ownership(before, event)
        self._kind = before.kind or kind_of(event.type, event.data)
        self._status = before.status
        self._percent = before.percent
        self._chunks_processed = before.chunks_processed
        self._chunks_total = before.chunks_total
        self._totals = before.totals
        self._calls = before.calls
        self._items = before.items
        self._terminal = before.terminal
        self._stamp = _stamp(event, self._workspace)

    def state(self) -> JobState:
        before = self._before
        # After its end a job drops every event, so it needs no ids. They are most of its memory.
        seen = self.seen if self._terminal is None else _NONE_SEEN
        return JobState(
            before.job_id,
            before.run,
            before.first_id,
            self._workspace,
            self._owner,
            self._kind,
            self._status,
            self._percent,
            self._chunks_processed,
            self._chunks_total,
            self._totals,
            self._calls,
            self._items,
            seen,
            self._terminal,
            self.event.id if self._terminal is not None else None,
        )

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def emit_message(self, key: str, *events: Event) -> None:
        """Emits the events of a message and stores them for clients that join later."""
        self.events.extend(events)
        self._store_item(key, events)

    def _store_item(self, key: str, events: tuple[Event, ...]) -> None:
        known = self._items.get(key)
        order = known.order if known else len(self._items)
        self._items = self._items.set(key, Item(order, events))

    def activity(self, key: str, kind: str, content: dict[str, Any]) -> None:
        """Emits the state of an activity, with the data of the event as `latest`.

        Clients that have the activity get a delta if it is shorter than the snapshot.
        """
        content["latest"] = self.event.data
        name, known = f"{VENDOR}.{kind}", self._items.get(key)
        changed = _changed(known.events[0]["content"], content) if known else None
        snapshot = activity_snapshot(key, name, content, self._stamp)
        self.emit(snapshot if changed is None else activity_delta(key, name, changed, self._stamp))
        self._store_item(key, (snapshot,))

    # Events of the job itself

    def lifecycle(self) -> None:
        self._advance(LIFECYCLE_STATUS[self.event.type])
        self._job_activity()

    def end(self) -> None:
        status = END_STATUS[self.event.type]
        data, run, stamp = self.event.data, self._before.run, self._stamp
        self._advance(status)
        self._job_activity()
        self._fail_open_calls()
        if status is JobStatus.FAILED:
            self._end_with(run_error(error_message(data), error_code(data), stamp))
            return
        if status is JobStatus.CANCELLED:
            self._end_with(run_cancelled(run["threadId"], run["runId"], stamp))
            return
        self._emit_answer()
        self._end_with(run_finished(run["threadId"], run["runId"], data, stamp))

    def _end_with(self, terminal: Event) -> None:
        self.emit(terminal)
        self._terminal = terminal

    def _advance(self, status: JobStatus) -> None:
        data = self.event.data
        processed, total = chunk_counts(data)
        self._status = status if status in ENDED else _later_status(self._status, status)
        self._percent = _max_known(self._percent, percent_of(self.event.type, data))
        self._chunks_processed = _max_known(self._chunks_processed, processed)
        self._chunks_total = _max_known(self._chunks_total, total)
        self._percent = displayed_percent(status, self._percent)

    def _job_activity(self) -> None:
        job_id = self._before.job_id
        content = {
            "job_id": job_id,
            "kind": self._kind,
            "status": self._status.value,
            "percent": self._percent,
            "chunks_processed": self._chunks_processed,
            "chunks_total": self._chunks_total,
        }
        self.activity(f"job:{job_id}", "job", _without_none(content))

    def _emit_answer(self) -> None:
        answer = answer_of(self.event.data)
        if answer:
            key = f"answer:{self._before.job_id}"
            self.emit_message(key, *text_message(key, "assistant", answer, self._stamp))

    # Tools

    def tool(self) -> None:
        data = self.event.data
        phase = tool_phase(self.event.type, data)
        call_id = tool_call_id(data) or self._generated_call_id(tool_name(data))
        call = self._calls.get(call_id)
        if call is None:
            call = ToolCallState(tool_name(data), "running")
            self._open(call_id, call)
        elif call.status != "running":
            self.dropped = "after_result"
            return
        if phase in ("complete", "error"):
            failed = phase == "error"
            call = ToolCallState(call.name, "failed" if failed else "completed")
            self._set_call(call_id, call)
            self._tool_activity(call_id, call)
            self._result(call_id, tool_result(data, failed=failed))
        else:
            self._tool_activity(call_id, call)

    def _generated_call_id(self, name: str) -> str:
        """Returns an id for a call without one: the name of the tool and a running number."""
        number = 1
        while (call := self._calls.get(f"{name}-{number}")) and call.status != "running":
            number += 1
        return f"{name}-{number}"

    def _open(self, call_id: str, call: ToolCallState) -> None:
        self._set_call(call_id, call)
        arguments = _json(tool_arguments(self.event.data))
        self.emit_message(f"call:{call_id}", *tool_call(call_id, call.name, arguments, self._stamp))

    def _set_call(self, call_id: str, call: ToolCallState) -> None:
        self._calls = self._calls.set(call_id, call)

    def _tool_activity(self, call_id: str, call: ToolCallState) -> None:
        content = {"tool_call_id": call_id, "tool": call.name, "status": call.status}
        self.activity(f"tool:{call_id}", "tool", content)

    def _result(self, call_id: str, content: str) -> None:
        key = f"res:{call_id}"
        self.emit_message(key, tool_call_result(key, call_id, content, self._stamp))

    def _fail_open_calls(self) -> None:
        """Adds an error result to each open call, or a UI would ask its user for the result."""
        for call_id, call in sorted(self._calls.items()):
            if call.status == "running":
                self._set_call(call_id, ToolCallState(call.name, "failed"))
                self._result(call_id, _json({"error": "the job ended before this tool reported"}))

    # Retrieval and all other types

    def rag(self) -> None:
        data = self.event.data
        totals = self._totals
        for name, fields in RAG_TOTALS[self.event.type]:
            totals = totals.set(name, totals.get(name, 0) + amount(data, fields))
        self._totals = totals
        self._advance(JobStatus.RUNNING)
        job_id = self._before.job_id
        self.activity(f"rag:{job_id}", "rag", {"job_id": job_id, **dict(sorted(totals.items()))})

    def other(self) -> None:
        self.emit(_raw(self.event, self._stamp))


def _handler(type_: str) -> Callable[[_FoldStep], None]:
    if type_ in RAG_TOTALS:
        return _FoldStep.rag
    if type_ in LIFECYCLE_STATUS:
        return _FoldStep.lifecycle
    if type_ in END_STATUS:
        return _FoldStep.end
    if type_ in TOOL_TYPES:
        return _FoldStep.tool
    return _FoldStep.other


def _later_status(a: JobStatus, b: JobStatus) -> JobStatus:
    """Returns `RUNNING` if one of the two is running."""
    return JobStatus.RUNNING if JobStatus.RUNNING in (a, b) else a


def _max_known(a: Number | None, b: Number | None) -> Number | None:
    return b if a is None else a if b is None else max(a, b)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the members that a delta has to send; None if a snapshot is not longer.

    `latest` is always sent: comparing the data of a producer costs more than sending it.
    """
    if not before.keys() <= after.keys():
        return None
    changed: dict[str, Any] = {}
    saved_bytes = 0
    for name, value in after.items():
        if name == "latest" or name not in before or before[name] != value:
            changed[name] = value
            saved_bytes -= _OPERATION_BYTES
        else:
            saved_bytes += len(name) + (len(value) if isinstance(value, str) else 0) + _MEMBER_BYTES
    return changed if saved_bytes > 0 else None


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}
