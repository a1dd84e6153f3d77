"""The fold: Shield's events of a job to one AG-UI 1.0 run.

`fold(state, event)` is pure: the same history gives the same frames in every process, which is
what lets a client resume at another instance. The states are immutable and share structure, so
keeping one per event costs a pointer.

Rules that every output keeps, whatever was duplicated, reordered or cut:
- RUN_STARTED comes first and once, the terminal event once and last, nothing follows it;
- whatever is opened (a tool call, a text) is closed by the frames of the same Shield event;
- progress and status never go back; a repeated event_id changes nothing;
- the `data` of an accepted Shield event stands in one of the frames made of it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, cast
from uuid import UUID

import orjson
from immutables import Map

from src.models.event import SUBMISSION, ShieldEvent, StreamId
from src.models.job import ENDED, JobStatus, percent_at
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
# A repeated XADD follows its first within moments; two generations of this many ids are kept.
_GENERATION = 4096
# By how much an operation of a delta is longer than the member in a snapshot, and what a member
# takes at least besides its name and a text.
_OPERATION_BYTES = 29
_MEMBER_BYTES = 5

Dropped = Literal["duplicate", "after_result", "after_end"]
Number = TypeVar("Number", int, float)


class RecentIds(NamedTuple):
    """The event ids seen lately, bounded: the younger generation and the one before it.

    All versions of a generation share one dictionary, which numbers its ids; a version has the
    first `size` of them. So each costs a tuple, where a persistent map would cost its path.
    """

    young: dict[str, int]
    size: int = 0
    old: Collection[str] = ()

    def __contains__(self, event_id: object) -> bool:
        number = self.young.get(cast("str", event_id))
        return (number is not None and number < self.size) or event_id in self.old

    def add(self, event_id: str) -> "RecentIds":
        young, size = self.young, self.size
        if len(young) > size:
            # Another version has gone on from here.
            young = {one: number for one, number in young.items() if number < size}
        young[event_id] = size
        if size + 1 < _GENERATION:
            return RecentIds(young, size + 1, self.old)
        return RecentIds({}, 0, young)


_NONE_SEEN = RecentIds({})


class Item(NamedTuple):
    """A message of the run and the events that make it again; `order` is that of first sight."""

    order: int
    events: tuple[Event, ...]


class ToolCallState(NamedTuple):
    name: str
    status: Literal["running", "completed", "failed"]


class JobState(NamedTuple):
    """All that the next event's frames depend on.

    `run` is the RUN_STARTED of the job, `first_id` the id of the event that it was made of.
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


class Folded(NamedTuple):
    """The state after an event and the AG-UI events made of it, or why there are none.

    Only a submission that comes after its job's end has neither: nothing may follow the end of a
    run, but the job has an owner from then on.
    """

    state: JobState | None
    events: Sequence[Event]
    dropped: Dropped | None = None


def fold(state: JobState | None, event: ShieldEvent) -> Folded:
    """Advance a job by one event. `state` is None before the job's first event."""
    if event.job_id is None or is_worker_event(event.type):
        return Folded(state, (_outside_runs(event),))
    before = state or _first_sight(event, event.job_id)
    if event.event_id in before.seen:
        return Folded(state, (), "duplicate")
    if before.ended:
        moved = before._replace(**_place(before, event)._asdict())
        return Folded(state, (), "after_end") if moved == before else Folded(moved, ())
    step = _Step(before, event)
    if state is None:
        step.emit(before.run)
    _handler(event.type)(step)
    if step.dropped:
        # Only frames may reveal something: an owner, say, who would miss the run so far.
        return Folded(before._replace(seen=step.seen), (), step.dropped)
    return Folded(step.state(), step.events)


def prelude(state: JobState) -> Iterator[Event]:
    """What a client that has none of the run needs before the next event: the run so far."""
    yield state.run
    for item in _in_order(state):
        yield from item.events


def resumed_prelude(state: JobState) -> Iterator[Event]:
    """What a client that kept the messages needs: the run is on, and how its activities stand.

    Tool calls and texts are left out, since the client would append them a second time.
    """
    yield state.run
    for item in _in_order(state):
        yield from filter(is_activity_snapshot, item.events)


def _in_order(state: JobState) -> list[Item]:
    return sorted(state.items.values(), key=lambda item: item.order)


def _first_sight(event: ShieldEvent, job_id: str) -> JobState:
    thread = event.metadata.get("thread_id")
    thread_id = thread if isinstance(thread, str) and thread else event.workspace or job_id
    return JobState(
        job_id=job_id,
        run=run_started(thread_id, job_id, _stamp(event, event.workspace)),
        first_id=event.id,
        workspace=event.workspace,
        seen=RecentIds({}),
    )


class _Place(NamedTuple):
    """Whose a job is, and in which workspace."""

    owner: UUID | None
    workspace: str | None


def _place(before: JobState, event: ShieldEvent) -> _Place:
    """Where an event puts its job: the first that names it does, a submission before all."""
    if event.type == SUBMISSION:
        return _Place(event.user_id or before.owner, event.workspace or before.workspace)
    if before.ended:
        return _Place(before.owner, before.workspace)
    return _Place(before.owner or event.user_id, before.workspace or event.workspace)


def _stamp(event: ShieldEvent, workspace: str | None) -> Stamp:
    metadata = {"job_id": event.job_id}
    if workspace is not None:
        metadata["workspace"] = workspace
    metadata["shield_type"] = event.type
    metadata["event_id"] = event.event_id
    return {"timestamp": event.timestamp, "metadata": metadata}


def _outside_runs(event: ShieldEvent) -> Event:
    # Without the job id: a client that sorts the feed by job must not find this in a run.
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


class _Step:
    """One application of the fold: the draft of the next state, and the events on the way."""

    def __init__(self, before: JobState, event: ShieldEvent) -> None:
        self.event = event
        self.events: list[Event] = []
        self.dropped: Dropped | None = None
        self._before = before
        self.seen = before.seen.add(event.event_id)
        self._owner, self._workspace = _place(before, event)
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
        # After its end a job drops whatever comes: its ids are most of what it would hold.
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

    def keep(self, key: str, *events: Event) -> None:
        """Emit the events of a message and remember them for whoever joins later."""
        self.events.extend(events)
        self._remember(key, events)

    def _remember(self, key: str, events: tuple[Event, ...]) -> None:
        known = self._items.get(key)
        order = known.order if known else len(self._items)
        self._items = self._items.set(key, Item(order, events))

    def activity(self, key: str, kind: str, content: dict[str, Any]) -> None:
        """An activity's standing, and the event's own data as `latest`.

        Clients that have the activity get what has changed of it, where that is shorter.
        """
        content["latest"] = self.event.data
        name, known = f"{VENDOR}.{kind}", self._items.get(key)
        changed = _changed(known.events[0]["content"], content) if known else None
        snapshot = activity_snapshot(key, name, content, self._stamp)
        self.emit(snapshot if changed is None else activity_delta(key, name, changed, self._stamp))
        self._remember(key, (snapshot,))

    # The job itself

    def lifecycle(self) -> None:
        self._advance(LIFECYCLE_STATUS[self.event.type])
        self._job_activity()

    def end(self) -> None:
        status = END_STATUS[self.event.type]
        data, run, stamp = self.event.data, self._before.run, self._stamp
        self._advance(status)
        self._job_activity()
        self._settle_open_calls()
        if status is JobStatus.FAILED:
            self._end_with(run_error(error_message(data), error_code(data), stamp))
            return
        if status is JobStatus.CANCELLED:
            self._end_with(run_cancelled(run["threadId"], run["runId"], stamp))
            return
        self._answer()
        self._end_with(run_finished(run["threadId"], run["runId"], data, stamp))

    def _end_with(self, terminal: Event) -> None:
        self.emit(terminal)
        self._terminal = terminal

    def _advance(self, status: JobStatus) -> None:
        data = self.event.data
        processed, total = chunk_counts(data)
        self._status = status if status in ENDED else _later(self._status, status)
        self._percent = _greatest(self._percent, percent_of(self.event.type, data))
        self._chunks_processed = _greatest(self._chunks_processed, processed)
        self._chunks_total = _greatest(self._chunks_total, total)
        self._percent = percent_at(status, self._percent)

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

    def _answer(self) -> None:
        answer = answer_of(self.event.data)
        if answer:
            key = f"answer:{self._before.job_id}"
            self.keep(key, *text_message(key, "assistant", answer, self._stamp))

    # Tools

    def tool(self) -> None:
        data = self.event.data
        phase = tool_phase(self.event.type, data)
        call_id = tool_call_id(data) or self._counted_call_id(tool_name(data))
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

    def _counted_call_id(self, name: str) -> str:
        """The id of a call whose producer gives none: the tool's name and a running number."""
        number = 1
        while (call := self._calls.get(f"{name}-{number}")) and call.status != "running":
            number += 1
        return f"{name}-{number}"

    def _open(self, call_id: str, call: ToolCallState) -> None:
        self._set_call(call_id, call)
        arguments = _json(tool_arguments(self.event.data))
        self.keep(f"call:{call_id}", *tool_call(call_id, call.name, arguments, self._stamp))

    def _set_call(self, call_id: str, call: ToolCallState) -> None:
        self._calls = self._calls.set(call_id, call)

    def _tool_activity(self, call_id: str, call: ToolCallState) -> None:
        content = {"tool_call_id": call_id, "tool": call.name, "status": call.status}
        self.activity(f"tool:{call_id}", "tool", content)

    def _result(self, call_id: str, content: str) -> None:
        key = f"res:{call_id}"
        self.keep(key, tool_call_result(key, call_id, content, self._stamp))

    def _settle_open_calls(self) -> None:
        """Answer what the run leaves open, or a UI would ask its user for the result."""
        for call_id, call in sorted(self._calls.items()):
            if call.status == "running":
                self._set_call(call_id, ToolCallState(call.name, "failed"))
                self._result(call_id, _json({"error": "the job ended before this tool reported"}))

    # Retrieval, and the rest

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


def _handler(type_: str) -> Callable[[_Step], None]:
    if type_ in RAG_TOTALS:
        return _Step.rag
    if type_ in LIFECYCLE_STATUS:
        return _Step.lifecycle
    if type_ in END_STATUS:
        return _Step.end
    if type_ in TOOL_TYPES:
        return _Step.tool
    return _Step.other


def _later(a: JobStatus, b: JobStatus) -> JobStatus:
    """Of queued and running, the one that comes later in a job's life."""
    return JobStatus.RUNNING if JobStatus.RUNNING in (a, b) else a


def _greatest(a: Number | None, b: Number | None) -> Number | None:
    return b if a is None else a if b is None else max(a, b)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a delta has to tell of an activity's content, None where a snapshot is no longer.

    `latest` is always told: to compare what a producer sent costs more than to send it.
    """
    if not before.keys() <= after.keys():
        return None
    changed: dict[str, Any] = {}
    spared = 0
    for name, value in after.items():
        if name == "latest" or name not in before or before[name] != value:
            changed[name] = value
            spared -= _OPERATION_BYTES
        else:
            spared += len(name) + (len(value) if isinstance(value, str) else 0) + _MEMBER_BYTES
    return changed if spared > 0 else None


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}
