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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import UUID

import orjson
from ag_ui.core import (
    PROTOCOL_VERSION,
    ActivitySnapshotEvent,
    BaseEvent,
    CustomEvent,
    RawEvent,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)
from immutables import Map

from src.models.event import ShieldEvent, StreamId
from src.models.job import ENDED, JobStatus
from src.services.shield_vocabulary import (
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

_EMPTY: Map[str, None] = Map()

Dropped = Literal["duplicate", "after_result", "after_end"]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class RecentIds:
    """The event ids seen lately, bounded: the younger generation and the one before it."""

    young: Map[str, None] = _EMPTY
    old: Map[str, None] = _EMPTY

    def __contains__(self, event_id: str) -> bool:
        return event_id in self.young or event_id in self.old

    def add(self, event_id: str) -> "RecentIds":
        young = self.young.set(event_id, None)
        if len(young) < _GENERATION:
            return RecentIds(young, self.old)
        return RecentIds(_EMPTY, young)


@dataclass(frozen=True, slots=True)
class Item:
    """A message of the run and the events that make it again; `order` is that of first sight."""

    order: int
    events: tuple[BaseEvent, ...]


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    status: Literal["running", "completed", "failed"]


class JobState(NamedTuple):
    """All that the next event's frames depend on. `run` is the RUN_STARTED of the job."""

    job_id: str
    run: RunStartedEvent
    workspace: str | None
    owner: UUID | None = None
    kind: str | None = None
    status: JobStatus = JobStatus.QUEUED
    percent: float | None = None
    chunks_processed: int | None = None
    chunks_total: int | None = None
    totals: Map[str, int] = Map()
    calls: Map[str, ToolCall] = Map()
    items: Map[str, Item] = Map()
    seen: RecentIds = RecentIds()
    terminal: BaseEvent | None = None
    terminal_id: StreamId | None = None

    @property
    def ended(self) -> bool:
        return self.terminal is not None


@dataclass(frozen=True, slots=True)
class Folded:
    """The state after an event and the AG-UI events made of it, or why there are none."""

    state: JobState | None
    events: tuple[BaseEvent, ...]
    dropped: Dropped | None = None


def fold(state: JobState | None, event: ShieldEvent) -> Folded:
    """Advance a job by one event. `state` is None before the job's first event."""
    if event.job_id is None or is_worker_event(event.type):
        return Folded(state, (_outside_runs(event),))
    before = state or _first_sight(event, event.job_id)
    if event.event_id in before.seen:
        return Folded(state, (), "duplicate")
    if before.ended:
        return Folded(state, (), "after_end")
    step = _Step(before, event)
    if state is None:
        step.emit(before.run)
    _handler(event.type)(step)
    if step.dropped:
        # Only frames may reveal something: an owner, say, who would miss the run so far.
        return Folded(before._replace(seen=step.state.seen), (), step.dropped)
    return Folded(step.state, tuple(step.events))


def belongs_to_run(event: ShieldEvent) -> bool:
    """Whether the event is part of its job's run, and not of the feed outside all runs."""
    return event.job_id is not None and not is_worker_event(event.type)


def prelude(state: JobState) -> Iterator[BaseEvent]:
    """What a client that has none of the run needs before the next event: the run so far."""
    yield state.run
    for item in _in_order(state):
        yield from item.events


def resumed_prelude(state: JobState) -> Iterator[BaseEvent]:
    """What a client that kept the messages needs: the run is on, and how its activities stand.

    Tool calls and texts are left out, since the client would append them a second time.
    """
    yield state.run
    for item in _in_order(state):
        yield from (event for event in item.events if isinstance(event, ActivitySnapshotEvent))


def _in_order(state: JobState) -> list[Item]:
    return sorted(state.items.values(), key=lambda item: item.order)


def _first_sight(event: ShieldEvent, job_id: str) -> JobState:
    thread = event.metadata.get("thread_id")
    return JobState(
        job_id=job_id,
        run=RunStartedEvent(
            thread_id=thread if isinstance(thread, str) and thread else event.workspace or job_id,
            run_id=job_id,
            protocol_version=PROTOCOL_VERSION,
            timestamp=event.timestamp,
            metadata=_metadata(event, event.workspace),
        ),
        workspace=event.workspace,
    )


def _metadata(event: ShieldEvent, workspace: str | None) -> dict[str, Any]:
    values = {
        "job_id": event.job_id,
        "workspace": workspace,
        "shield_type": event.type,
        "event_id": event.event_id,
    }
    return {name: value for name, value in values.items() if value is not None}


def _outside_runs(event: ShieldEvent) -> BaseEvent:
    # Without the job id: a client that sorts the feed by job must not find this in a run.
    metadata = {k: v for k, v in _metadata(event, event.workspace).items() if k != "job_id"}
    if is_worker_event(event.type):
        return CustomEvent(
            name=f"{VENDOR}.{event.type}",
            value={"data": dict(event.data), "job_id": event.job_id},
            timestamp=event.timestamp,
            metadata=metadata,
        )
    return _raw(event, metadata)


def _raw(event: ShieldEvent, metadata: dict[str, Any]) -> RawEvent:
    return RawEvent(
        event={
            "type": event.type,
            "event_id": event.event_id,
            "data": dict(event.data),
            "metadata": dict(event.metadata),
        },
        source=SOURCE,
        timestamp=event.timestamp,
        metadata=metadata,
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


class _Step:
    """One application of the fold: collects events and the changes of the state."""

    def __init__(self, state: JobState, event: ShieldEvent) -> None:
        self.event = event
        self.events: list[BaseEvent] = []
        self.dropped: Dropped | None = None
        self.state = state._replace(
            seen=state.seen.add(event.event_id),
            owner=state.owner or event.user_id,
            workspace=state.workspace or event.workspace,
            kind=state.kind or kind_of(event.type, event.data),
        )
        self._stamp: dict[str, Any] = {
            "timestamp": event.timestamp,
            "metadata": _metadata(event, self.state.workspace),
        }

    def emit(self, event: BaseEvent) -> None:
        self.events.append(event)

    def keep(self, key: str, *events: BaseEvent) -> None:
        """Emit the events of a message and remember them for whoever joins later."""
        self.events.extend(events)
        known = self.state.items.get(key)
        order = known.order if known else len(self.state.items)
        self.state = self.state._replace(items=self.state.items.set(key, Item(order, events)))

    def activity(self, key: str, kind: str, content: dict[str, Any]) -> None:
        """A snapshot of an activity: its standing, and the event's own data as `latest`."""
        self.keep(
            key,
            ActivitySnapshotEvent(
                message_id=key,
                activity_type=f"{VENDOR}.{kind}",
                content={**_without_none(content), "latest": dict(self.event.data)},
                **self._stamp,
            ),
        )

    # The job itself

    def lifecycle(self) -> None:
        self._advance(LIFECYCLE_STATUS[self.event.type])
        self._job_activity()

    def end(self) -> None:
        status = END_STATUS[self.event.type]
        data = self.event.data
        self._advance(status)
        self._job_activity()
        if status is JobStatus.FAILED:
            self._finish_with(
                RunErrorEvent(message=error_message(data), code=error_code(data), **self._stamp)
            )
            return
        self._settle_open_calls()
        if status is JobStatus.CANCELLED:
            outcome: Any = RunFinishedCancelledOutcome(type="cancelled")
            self._finish_with(self._run_finished(outcome=outcome))
            return
        self._answer()
        outcome = RunFinishedSuccessOutcome(type="success")
        self._finish_with(self._run_finished(outcome=outcome, result=dict(data)))

    def _run_finished(self, **values: Any) -> RunFinishedEvent:
        run = self.state.run
        return RunFinishedEvent(thread_id=run.thread_id, run_id=run.run_id, **values, **self._stamp)

    def _finish_with(self, terminal: BaseEvent) -> None:
        self.emit(terminal)
        self.state = self.state._replace(terminal=terminal, terminal_id=self.event.id)

    def _advance(self, status: JobStatus) -> None:
        state, data = self.state, self.event.data
        processed, total = chunk_counts(data)
        self.state = state._replace(
            status=status if status in ENDED else max(state.status, status, key=_PROGRESS.index),
            percent=_greatest(state.percent, percent_of(data)),
            chunks_processed=_greatest(state.chunks_processed, processed),
            chunks_total=_greatest(state.chunks_total, total),
        )
        if status is JobStatus.COMPLETED and self.state.percent is not None:
            self.state = self.state._replace(percent=100.0)

    def _job_activity(self) -> None:
        state = self.state
        self.activity(
            f"job:{state.job_id}",
            "job",
            {
                "job_id": state.job_id,
                "kind": state.kind,
                "status": state.status.value,
                "percent": state.percent,
                "chunks_processed": state.chunks_processed,
                "chunks_total": state.chunks_total,
            },
        )

    def _answer(self) -> None:
        answer = answer_of(self.event.data)
        if not answer:
            return
        key = f"answer:{self.state.job_id}"
        self.keep(
            key,
            TextMessageStartEvent(message_id=key, role="assistant", **self._stamp),
            TextMessageContentEvent(message_id=key, delta=answer, **self._stamp),
            TextMessageEndEvent(message_id=key, **self._stamp),
        )

    # Tools

    def tool(self) -> None:
        data = self.event.data
        phase = tool_phase(self.event.type, data)
        call_id = tool_call_id(data) or self._counted_call_id(tool_name(data))
        call = self.state.calls.get(call_id)
        if call is None:
            call = ToolCall(tool_name(data), "running")
            self._open(call_id, call)
        elif call.status != "running":
            self.dropped = "after_result"
            return
        if phase in ("complete", "error"):
            failed = phase == "error"
            call = replace(call, status="failed" if failed else "completed")
            self._set_call(call_id, call)
            self._tool_activity(call_id, call)
            self._result(call_id, tool_result(data, failed=failed))
        else:
            self._tool_activity(call_id, call)

    def _counted_call_id(self, name: str) -> str:
        """The id of a call whose producer gives none: the tool's name and a running number."""
        number = 1
        while (call := self.state.calls.get(f"{name}-{number}")) and call.status != "running":
            number += 1
        return f"{name}-{number}"

    def _open(self, call_id: str, call: ToolCall) -> None:
        self._set_call(call_id, call)
        arguments = _json(tool_arguments(self.event.data))
        stamp: dict[str, Any] = {"tool_call_id": call_id, **self._stamp}
        self.keep(
            f"call:{call_id}",
            ToolCallStartEvent(tool_call_name=call.name, **stamp),
            ToolCallArgsEvent(delta=arguments, **stamp),
            ToolCallEndEvent(**stamp),
        )

    def _set_call(self, call_id: str, call: ToolCall) -> None:
        self.state = self.state._replace(calls=self.state.calls.set(call_id, call))

    def _tool_activity(self, call_id: str, call: ToolCall) -> None:
        content = {"tool_call_id": call_id, "tool": call.name, "status": call.status}
        self.activity(f"tool:{call_id}", "tool", content)

    def _result(self, call_id: str, content: str) -> None:
        key = f"res:{call_id}"
        result = ToolCallResultEvent(
            message_id=key, tool_call_id=call_id, content=content, role="tool", **self._stamp
        )
        self.keep(key, result)

    def _settle_open_calls(self) -> None:
        """Answer what the run leaves open, or a UI would ask its user for the result."""
        for call_id, call in sorted(self.state.calls.items()):
            if call.status == "running":
                self._set_call(call_id, replace(call, status="failed"))
                self._result(call_id, _json({"error": "the job ended before this tool reported"}))

    # Retrieval, and the rest

    def rag(self) -> None:
        data = self.event.data
        totals = self.state.totals
        for name, fields in RAG_TOTALS[self.event.type]:
            totals = totals.set(name, totals.get(name, 0) + amount(data, fields))
        self.state = self.state._replace(totals=totals)
        self._advance(JobStatus.RUNNING)
        key = f"rag:{self.state.job_id}"
        content: dict[str, Any] = {"job_id": self.state.job_id, **dict(sorted(totals.items()))}
        self.activity(key, "rag", content)

    def raw(self) -> None:
        self.emit(_raw(self.event, self._stamp["metadata"]))


_PROGRESS = (JobStatus.QUEUED, JobStatus.RUNNING)


def _handler(type_: str) -> Callable[[_Step], None]:
    if type_ in RAG_TOTALS:
        return _Step.rag
    if type_ in LIFECYCLE_STATUS:
        return _Step.lifecycle
    if type_ in END_STATUS:
        return _Step.end
    if type_ in TOOL_TYPES:
        return _Step.tool
    return _Step.raw


def _greatest(a: Number | None, b: Number | None) -> Number | None:
    return b if a is None else a if b is None else max(a, b)


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}
