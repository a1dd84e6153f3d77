"""The projection: the AG-UI events of each Shield event, and the invariants of every history."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import orjson
import pytest
from ag_ui.core import PROTOCOL_VERSION
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ShieldEvent
from src.services.agui.sse import encode
from src.services.event_service import JobState, fold, resume_snapshot, run_snapshot
from tests.run_checker import check_event, check_frames, check_run, parse_frames
from tests.support.agui_client import AgUiClient
from tests.support.builders import (
    JOB,
    OWNER,
    STRANGER,
    folded,
    new_projector,
    shield_event,
    stream,
    wire,
    wire_of,
)
from tests.support.strategies import DATA, HISTORIES, faulty_history, random_events, valid_history

Wire = dict[str, Any]


def types(events: list[Wire]) -> list[str]:
    return [event["type"] for event in events]


def state_after(events: list[ShieldEvent]) -> JobState:
    *_, (_, state, _) = folded(events)
    assert state is not None
    return state


def on_the_wire(events: Iterator[Wire]) -> list[Wire]:
    return wire_of(encode(events))


# AG-UI events of each event type


class TestRunStart:
    def test_thread_defaults_to_the_workspace(self) -> None:
        first, *_ = wire([shield_event("job:queued", workspace="library")])
        assert first["type"] == "RUN_STARTED"
        assert first["runId"] == JOB
        assert first["threadId"] == "library"
        assert first["protocolVersion"] == PROTOCOL_VERSION

    def test_thread_of_the_producer_overrides_the_workspace(self) -> None:
        event = shield_event("job:queued", workspace="library", metadata={"thread_id": "chat-7"})
        assert wire([event])[0]["threadId"] == "chat-7"

    def test_thread_defaults_to_the_job_without_workspace(self) -> None:
        assert wire([shield_event("job:queued")])[0]["threadId"] == JOB

    @pytest.mark.parametrize(
        "kind", ["job:progress", "tool:complete", "rag:graph_updated", "job:failed", "cache:warmed"]
    )
    def test_any_first_event_starts_the_run(self, kind: str) -> None:
        assert types(wire([shield_event(kind)]))[0] == "RUN_STARTED"

    def test_run_starts_once(self) -> None:
        events = wire([shield_event("job:queued"), shield_event("job:started")])
        assert types(events) == ["RUN_STARTED", "ACTIVITY_SNAPSHOT", "ACTIVITY_SNAPSHOT"]


class TestMetadata:
    def test_metadata_of_every_event(self) -> None:
        event = shield_event("job:complete", {"answer": "42"}, workspace="library", event_id="e-1")
        expected = {
            "job_id": JOB,
            "workspace": "library",
            "shield_type": "job:complete",
            "event_id": "e-1",
        }
        assert [output["metadata"] for output in wire([event])] == [expected] * 6

    def test_workspace_is_inherited_from_the_job(self) -> None:
        events = stream(shield_event("job:queued", workspace="library"), shield_event())
        assert wire(events)[-1]["metadata"]["workspace"] == "library"

    def test_timestamp_is_that_of_the_shield_event(self) -> None:
        output = wire([shield_event("job:complete", timestamp=1_700_000_000_123)])
        assert {one["timestamp"] for one in output} == {1_700_000_000_123}


class TestLifecycle:
    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            ("job:queued", "queued"),
            ("job:started", "running"),
            ("job:progress", "running"),
            ("job.started", "running"),
            ("ingestion.queued", "queued"),
            ("ingestion.started", "running"),
            ("ingestion.progress", "running"),
            ("query.started", "running"),
            ("result.ready", "running"),
        ],
    )
    def test_event_becomes_an_activity_snapshot(self, kind: str, status: str) -> None:
        snapshot = wire([shield_event(kind, {"note": "n"})])[-1]
        assert snapshot["type"] == "ACTIVITY_SNAPSHOT"
        assert snapshot["messageId"] == f"job:{JOB}"
        assert snapshot["activityType"] == "hx.shield.job"
        assert snapshot["content"]["status"] == status
        assert snapshot["content"]["latest"] == {"note": "n"}

    def test_snapshot_accumulates_the_events(self) -> None:
        client = AgUiClient().apply(
            wire(
                [
                    shield_event("job:queued", {"job_type": "crawl", "chunks_total": 8}),
                    shield_event("job:progress", {"percent": 25, "chunks_processed": 2}),
                    shield_event("job:progress", {"message": "still at it"}),
                ]
            )
        )
        assert client.activity(f"job:{JOB}") == {
            "job_id": JOB,
            "kind": "crawl",
            "status": "running",
            "percent": 25.0,
            "chunks_processed": 2,
            "chunks_total": 8,
            "latest": {"message": "still at it"},
        }

    @pytest.mark.parametrize("name", ["percent", "percent_complete", "progress_percent"])
    @pytest.mark.parametrize(
        ("given_", "shown"), [(-3, 0.0), (0, 0.0), (12.5, 12.5), (100, 100.0), (250, 100.0)]
    )
    def test_percent_is_clamped_to_0_and_100(self, name: str, given_: float, shown: float) -> None:
        assert wire([shield_event(data={name: given_})])[-1]["content"]["percent"] == shown

    @pytest.mark.parametrize("value", ["50", None, True, [50], {"percent": 50}])
    def test_non_numeric_percent_is_ignored(self, value: object) -> None:
        assert "percent" not in wire([shield_event(data={"percent": value})])[-1]["content"]

    def test_late_events_do_not_lower_progress_or_status(self) -> None:
        client = AgUiClient().apply(
            wire(
                [
                    shield_event("job:progress", {"percent": 80, "chunks_processed": 8}),
                    shield_event("job:queued", {"percent": 0, "chunks_processed": 0}),
                ]
            )
        )
        content = client.activity(f"job:{JOB}")
        assert (content["status"], content["percent"], content["chunks_processed"]) == (
            "running",
            80.0,
            8,
        )


class TestEnd:
    @pytest.mark.parametrize(
        "kind", ["job:complete", "job.completed", "ingestion.completed", "query.completed"]
    )
    def test_success(self, kind: str) -> None:
        events = [shield_event("job:progress", {"percent": 40}), shield_event(kind, {"pages": 3})]
        *_, snapshot, end = wire(events)
        assert snapshot["content"]["status"] == "completed"
        assert snapshot["content"]["percent"] == 100.0
        assert end["type"] == "RUN_FINISHED"
        assert end["outcome"] == {"type": "success"}
        assert end["result"] == {"pages": 3}
        assert end["runId"] == JOB

    @pytest.mark.parametrize("kind", ["job:failed", "ingestion.failed", "error"])
    def test_failure(self, kind: str) -> None:
        data = {"error": "no route to host", "error_type": "ConnectTimeout"}
        *_, snapshot, end = wire([shield_event(kind, data)])
        assert snapshot["content"]["status"] == "failed"
        assert snapshot["content"]["latest"] == data
        assert end["type"] == "RUN_ERROR"
        assert (end["message"], end["code"]) == ("no route to host", "ConnectTimeout")

    @pytest.mark.parametrize("data", [{}, {"error": ""}, {"error": {"deep": 1}}, {"error": None}])
    def test_failure_without_reason_has_a_message(self, data: Wire) -> None:
        end = wire([shield_event("job:failed", data)])[-1]
        assert end["message"]
        assert "code" not in end

    def test_cancelled(self) -> None:
        *_, snapshot, end = wire([shield_event("job:cancelled", {"reason": "by the user"})])
        assert snapshot["content"]["latest"] == {"reason": "by the user"}
        assert end["type"] == "RUN_FINISHED"
        assert end["outcome"] == {"type": "cancelled"}
        assert "result" not in end

    def test_answer_is_a_text_message_before_the_end(self) -> None:
        events = wire([shield_event("query.completed", {"answer": "With XAUTOCLAIM."})])
        assert types(events)[-4:] == [
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END",
            "RUN_FINISHED",
        ]
        assert events[-4]["role"] == "assistant"
        assert events[-3]["delta"] == "With XAUTOCLAIM."

    @pytest.mark.parametrize("answer", ["", "  ", None, 7])
    def test_empty_or_non_text_answer_produces_no_message(self, answer: object) -> None:
        events = wire([shield_event("query.completed", {"answer": answer})])
        assert "TEXT_MESSAGE_START" not in types(events)

    @pytest.mark.parametrize("end", ["job:complete", "job:failed", "job:cancelled"])
    @pytest.mark.parametrize("late", ["job:progress", "job:complete", "job:failed", "cache:warmed"])
    def test_events_after_the_end_are_dropped(self, end: str, late: str) -> None:
        state = state_after([shield_event(end)])
        result = fold(state, shield_event(late))
        assert (result.events, result.dropped) == ((), "after_end")
        assert result.state == state

    @pytest.mark.parametrize("end", ["job:complete", "job:failed", "job:cancelled"])
    def test_ended_job_keeps_no_event_ids(self, end: str) -> None:
        events = [shield_event("job:progress") for _ in range(50)]
        assert events[7].event_id in state_after(events).seen
        assert len(state_after([*events, shield_event(end)]).seen.current) == 0

    @pytest.mark.parametrize(
        ("end", "last"),
        [
            ("job:complete", "RUN_FINISHED"),
            ("job:cancelled", "RUN_FINISHED"),
            ("job:failed", "RUN_ERROR"),
        ],
    )
    def test_open_tool_calls_get_a_result_before_the_end(self, end: str, last: str) -> None:
        events = wire(
            [shield_event("tool:start", {"tool_call_id": "c", "tool": "crawl"}), shield_event(end)]
        )
        result = next(one for one in events if one["type"] == "TOOL_CALL_RESULT")
        assert result["toolCallId"] == "c"
        assert "error" in orjson.loads(result["content"])
        assert events[-1]["type"] == last


class TestTools:
    CALL: Mapping[str, Any] = {"tool_call_id": "c1", "tool_name": "crawl_web"}

    def test_start_produces_a_complete_call(self) -> None:
        data = {**self.CALL, "arguments": {"url": "https://example.org/ü"}}
        _, start, args, end, activity = wire([shield_event("tool:start", data)])
        assert types([start, args, end]) == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
        assert start["toolCallName"] == "crawl_web"
        assert orjson.loads(args["delta"]) == {"url": "https://example.org/ü"}
        assert activity["messageId"] == "tool:c1"
        assert activity["content"]["latest"] == data

    def test_progress_is_an_activity_delta(self) -> None:
        start = shield_event("tool:start", self.CALL)
        progress = shield_event("tool:progress", {**self.CALL, "percent": 50})
        (output,) = list(folded([start, progress]))[1][2]
        assert output["type"] == "ACTIVITY_DELTA"
        assert output["messageId"] == "tool:c1"
        assert output["patch"] == [{"op": "add", "path": "/latest", "value": progress.data}]

    def test_completion_is_a_result(self) -> None:
        data = {**self.CALL, "result": {"matches": [1, None]}}
        events = wire([shield_event("tool:start", self.CALL), shield_event("tool:complete", data)])
        result = events[-1]
        assert (result["type"], result["messageId"]) == ("TOOL_CALL_RESULT", "res:c1")
        assert orjson.loads(result["content"]) == data
        assert events[-2]["content"]["status"] == "completed"

    def test_error_is_a_result(self) -> None:
        data = {**self.CALL, "error": "no route to host"}
        result = wire([shield_event("tool:error", data)])[-1]
        assert result["type"] == "TOOL_CALL_RESULT"
        assert orjson.loads(result["content"])["error"] == "no route to host"

    def test_error_without_message_has_a_default(self) -> None:
        result = wire([shield_event("tool:error", {"tool_call_id": "c1"})])[-1]
        assert orjson.loads(result["content"])["error"]

    def test_completion_before_start_opens_the_call(self) -> None:
        first = shield_event("tool:complete", self.CALL)
        late = shield_event("tool:start", {**self.CALL, "arguments": {"url": "x"}})
        steps = list(folded([first, late]))
        assert types(steps[0][2])[1:4] == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
        assert steps[1][2] == []
        assert fold(steps[0][1], late).dropped == "after_result"

    def test_second_result_is_dropped(self) -> None:
        state = state_after([shield_event("tool:complete", self.CALL)])
        assert fold(state, shield_event("tool:error", self.CALL)).dropped == "after_result"

    def test_second_start_does_not_reopen_the_call(self) -> None:
        events = [shield_event("tool:start", self.CALL), shield_event("tool:start", self.CALL)]
        assert types(wire(events)).count("TOOL_CALL_START") == 1

    def test_calls_may_interleave(self) -> None:
        client = AgUiClient().apply(
            wire(
                [
                    shield_event("tool:start", {"tool_call_id": "a", "tool": "x"}),
                    shield_event("tool:start", {"tool_call_id": "b", "tool": "y"}),
                    shield_event("tool:complete", {"tool_call_id": "a", "n": 1}),
                    shield_event("tool:complete", {"tool_call_id": "b", "n": 2}),
                ]
            )
        )
        assert {name: orjson.loads(text)["n"] for name, text in client.results().items()} == {
            "res:a": 1,
            "res:b": 2,
        }
        assert {name: call["name"] for name, call in client.calls().items()} == {"a": "x", "b": "y"}

    @pytest.mark.parametrize("given_id", [7, "7"])
    def test_numeric_id_equals_its_decimal_string(self, given_id: object) -> None:
        assert wire([shield_event("tool:start", {"id": given_id})])[1]["toolCallId"] == "7"

    def test_calls_without_ids_are_numbered_by_tool(self) -> None:
        run = {"tool": "crawl", "status": "running"}
        done = {"tool": "crawl", "status": "completed"}
        events = wire([shield_event("tool.execution", data) for data in (run, done, run, done)])
        starts = [one["toolCallId"] for one in events if one["type"] == "TOOL_CALL_START"]
        results = [one["toolCallId"] for one in events if one["type"] == "TOOL_CALL_RESULT"]
        assert starts == results == ["crawl-1", "crawl-2"]

    @pytest.mark.parametrize(
        ("status", "result"),
        [
            ("started", False),
            ("running", False),
            ("anything", False),
            ("completed", True),
            ("SUCCESS", True),
            ("failed", True),
            ("error", True),
        ],
    )
    def test_legacy_type_has_its_phase_in_the_status(self, *, status: str, result: bool) -> None:
        output = wire([shield_event("tool.execution", {**self.CALL, "status": status})])
        assert ("TOOL_CALL_RESULT" in types(output)) is result


class TestRetrieval:
    def test_totals_are_cumulative_in_one_activity(self) -> None:
        client = AgUiClient().apply(
            wire(
                [
                    shield_event("rag:chunk_processed", {"chunk_index": 0}),
                    shield_event("rag:chunk_processed", {"chunk_index": 1}),
                    shield_event("rag:entity_extracted", {"entities": ["a", "b"]}),
                    shield_event("rag:entity_extracted", {"entity_count": 3}),
                    shield_event("rag:entity_extracted", {"name": "one"}),
                    shield_event("rag:vector_stored", {"count": 4}),
                    shield_event("rag:graph_updated", {"nodes": 2, "edges": 1}),
                ]
            )
        )
        assert client.activity(f"rag:{JOB}") == {
            "job_id": JOB,
            "chunks_processed": 2,
            "entities_extracted": 6,
            "vectors_stored": 4,
            "graph_updates": 1,
            "nodes_added": 2,
            "edges_added": 1,
            "latest": {"nodes": 2, "edges": 1},
        }

    def test_duplicate_event_is_not_counted(self) -> None:
        event = shield_event("rag:vector_stored", {"count": 4}, event_id="once")
        again = shield_event("rag:vector_stored", {"count": 4}, event_id="once")
        result = fold(state_after([event]), again)
        assert (result.events, result.dropped) == ((), "duplicate")


class TestEventsOutsideRuns:
    @pytest.mark.parametrize("kind", ["worker.started", "worker_pool.stopped", "worker.invented"])
    @pytest.mark.parametrize("job", [None, JOB])
    def test_worker_events_are_custom_events(self, kind: str, job: str | None) -> None:
        event = shield_event(kind, {"worker_id": 3}, job=job)
        (output,) = wire([event])
        assert output["type"] == "CUSTOM"
        assert output["name"] == f"hx.shield.{kind}"
        assert output["value"]["data"] == {"worker_id": 3}
        assert "job_id" not in output["metadata"]
        assert fold(None, event).state is None

    def test_event_without_job_is_raw(self) -> None:
        (output,) = wire([shield_event("job:progress", {"percent": 3}, job=None)])
        assert output["type"] == "RAW"
        assert output["event"]["data"] == {"percent": 3}
        assert output["source"] == "shield"

    def test_unknown_type_of_a_job_is_raw_in_its_run(self) -> None:
        event = shield_event("cache:warmed", {"n": None}, metadata={"source": "cache"})
        start, output = wire([event])
        assert start["type"] == "RUN_STARTED"
        assert output["type"] == "RAW"
        assert output["event"]["type"] == "cache:warmed"
        assert output["event"]["data"] == {"n": None}
        assert output["event"]["metadata"] == {"source": "cache"}
        assert output["metadata"]["job_id"] == JOB


class TestOwner:
    def test_first_owner_is_kept(self) -> None:
        events = [
            shield_event("job:queued"),
            shield_event("job:started", user=OWNER),
            shield_event("job:progress", user=STRANGER),
        ]
        owners = [state.owner for _, state, _ in folded(events) if state]
        assert owners == [None, UUID(OWNER), UUID(OWNER)]

    @pytest.mark.parametrize("value", ["", "alice", 7, None, [], {"id": OWNER}])
    def test_invalid_user_id_sets_no_owner(self, value: object) -> None:
        assert state_after([shield_event(metadata={"user_id": value})]).owner is None

    def test_dropped_event_sets_no_owner(self) -> None:
        """Otherwise the owner's stream would continue in the middle of an unknown run."""
        call = {"tool_call_id": "c"}
        state = state_after([shield_event("tool:complete", call)])
        dropped = fold(state, shield_event("tool:start", call, user=OWNER))
        assert dropped.dropped == "after_result"
        assert dropped.state is not None
        assert dropped.state.owner is None


class TestSubmission:
    def test_submission_overrides_producers(self) -> None:
        events = stream(
            shield_event("job:started", user=STRANGER, workspace="theirs"),
            shield_event("job:accepted", user=OWNER, workspace="ours"),
            shield_event("job:progress", user=STRANGER, workspace="theirs"),
        )
        states = [state for _, state, _ in folded(events) if state]
        assert [(state.owner, state.workspace) for state in states] == [
            (UUID(STRANGER), "theirs"),
            (UUID(OWNER), "ours"),
            (UUID(OWNER), "ours"),
        ]

    def test_submission_after_the_end_changes_ownership_once(self) -> None:
        started, ended, submitted, again = stream(
            shield_event("job:started"),
            shield_event("job:complete"),
            shield_event("job:accepted", user=OWNER, workspace="ours", event_id="submission:1"),
            shield_event("job:accepted", user=OWNER, workspace="ours", event_id="submission:1"),
        )
        before = state_after([started, ended])
        moved = fold(before, submitted)
        assert (moved.events, moved.dropped) == ((), None)
        assert moved.state is not None
        assert (moved.state.owner, moved.state.workspace) == (UUID(OWNER), "ours")
        assert moved.state.terminal_id == before.terminal_id
        assert fold(moved.state, again).dropped == "after_end"

    def test_other_events_after_the_end_change_no_ownership(self) -> None:
        started, ended, late = stream(
            shield_event("job:started"),
            shield_event("job:complete"),
            shield_event("job:progress", user=STRANGER),
        )
        folding = fold(state_after([started, ended]), late)
        assert folding.dropped == "after_end"
        assert folding.state is not None
        assert folding.state.owner is None


def test_only_recent_event_ids_are_remembered() -> None:
    state = None
    for number in range(10_000):
        state = fold(state, shield_event(event_id=f"e-{number}")).state
    assert state is not None
    assert fold(state, shield_event(event_id="e-9999")).dropped == "duplicate"
    assert fold(state, shield_event(event_id="e-6000")).dropped == "duplicate"
    assert len(state.seen.current) + len(state.seen.previous) <= 2 * 4096


# Invariants of every history


@given(HISTORIES)
def test_events_of_a_job_form_a_valid_run(events: list[ShieldEvent]) -> None:
    run = check_run(wire(events))
    ended = any(output["type"] in {"RUN_FINISHED", "RUN_ERROR"} for output in wire(events))
    assert (run.terminal is not None) is ended


@given(HISTORIES)
def test_only_the_last_frame_of_a_record_has_the_id(events: list[ShieldEvent]) -> None:
    jobs = new_projector()
    frames = []
    for event in events:
        for record in jobs.apply([event]):
            *others, last = parse_frames(record.frames)
            assert [frame.id for frame in others] == [None] * len(others)
            assert last.id == str(event.id)
            frames += [*others, last]
    check_frames(frames)


def contains(value: Any, part: Any) -> bool:
    """Whether a JSON value contains another one, including JSON inside texts."""
    if value == part:
        return True
    if isinstance(value, dict):
        return any(contains(inner, part) for inner in value.values())
    return isinstance(value, list) and any(contains(inner, part) for inner in value)


@given(HISTORIES)
def test_frames_contain_the_data_unless_dropped(
    events: list[ShieldEvent],
) -> None:
    state = None
    for event in events:
        result = fold(state, event)
        output = wire_of(encode(result.events, event.id))
        assert (result.dropped is not None) is (not output)
        assert result.dropped or any(contains(one, dict(event.data)) for one in output)
        state = result.state


@given(DATA, st.none() | st.text(min_size=1, max_size=5))
def test_frames_outside_runs_contain_the_data(data: dict[str, Any], job: str | None) -> None:
    for kind in ("worker.started", "cache:warmed"):
        (*_, output) = wire([shield_event(kind, data, job=job)])
        check_event(output)
        assert contains(output, data)


@given(HISTORIES)
def test_progress_totals_and_status_never_decrease(events: list[ShieldEvent]) -> None:
    order = ["queued", "running", "completed", "failed", "cancelled"]
    newest: dict[tuple[str, str], float] = {}
    client = AgUiClient()
    for output in wire(events):
        client.apply([output])
        if not output["type"].startswith("ACTIVITY") or output["messageId"].startswith("tool:"):
            continue
        shown = client.activity(output["messageId"])
        content = {name: value for name, value in shown.items() if name != "latest"}
        numbers = {name: value for name, value in content.items() if isinstance(value, int | float)}
        if "status" in content:
            numbers["status"] = order.index(content["status"])
        for name, value in numbers.items():
            key = output["messageId"], name
            assert value >= newest.get(key, value), f"{name} of {key[0]} goes back"
            newest[key] = value


@given(HISTORIES)
def test_deltas_lead_to_the_current_snapshot(
    events: list[ShieldEvent],
) -> None:
    client = AgUiClient()
    for _, state, output in folded([event for event in events if event.job_id == JOB]):
        client.apply(output)
        for key, item in state.items.items() if state else ():
            (*_, last) = item.events
            if last["type"] == "ACTIVITY_SNAPSHOT":
                assert client.activity(key) == orjson.loads(orjson.dumps(last["content"]))
                deltas = [one for one in output if one.get("patch") and one["messageId"] == key]
                assert all(len(encode([one])) < len(encode([last])) for one in deltas)


def test_delta_is_idempotent() -> None:
    call = {"tool_call_id": "c", "tool_name": "crawl_web"}
    progress = [shield_event("tool:progress", {**call, "n": n}) for n in range(3)]
    events = wire(progress)
    deltas = [output for output in events if output["type"] == "ACTIVITY_DELTA"]
    assert len(deltas) == 2
    once = AgUiClient().apply(events)
    assert AgUiClient().apply([*events, deltas[-1]]) == once


@given(HISTORIES, st.data())
def test_duplicate_event_changes_nothing(events: list[ShieldEvent], data: st.DataObject) -> None:
    index = data.draw(st.integers(1, len(events)))
    again = data.draw(st.sampled_from(events[:index]))
    state = state_after(events[:index])
    result = fold(state, again)
    assert result.events == ()
    assert result.state == state


@given(HISTORIES)
def test_projection_is_deterministic(events: list[ShieldEvent]) -> None:
    def run() -> bytes:
        return b"".join(record.frames for record in new_projector().apply(events))

    assert run() == run()


@given(HISTORIES, st.data())
def test_client_may_join_after_any_event(events: list[ShieldEvent], data: st.DataObject) -> None:
    index = data.draw(st.integers(1, len(events)), label="joins after")
    joined = on_the_wire(run_snapshot(state_after(events[:index])))
    state = state_after(events[:index])
    for _, _, output in folded(events[index:], state):
        joined += output
    if state.terminal is not None:
        joined += on_the_wire(iter([state.terminal]))
    check_run(joined)

    late, there = AgUiClient().apply(joined), AgUiClient().apply(wire(events))
    assert late == there


@given(HISTORIES, st.data())
def test_client_may_resume_after_any_event(events: list[ShieldEvent], data: st.DataObject) -> None:
    index = data.draw(st.integers(1, len(events)), label="resumes after")
    state = state_after(events[:index])
    connection = on_the_wire(resume_snapshot(state))
    for _, _, output in folded(events[index:], state):
        connection += output
    if state.terminal is None:
        check_run(connection)

    resumed = AgUiClient().apply(wire(events[:index])).apply(connection)
    assert resumed == AgUiClient().apply(wire(events))


@given(valid_history() | faulty_history(), st.data())
def test_client_may_resume_within_a_record(events: list[ShieldEvent], data: st.DataObject) -> None:
    """The connection broke within a record, which is repeated; the order rules hold."""
    steps = list(folded(events))
    index = data.draw(st.integers(0, len(steps) - 1))
    state = steps[index - 1][1] if index else None
    connection = on_the_wire(resume_snapshot(state)) if state else []
    for _, _, output in steps[index:]:
        connection += output
    check_run(connection)


@given(random_events())
def test_preludes_have_no_ids(events: list[ShieldEvent]) -> None:
    state = state_after(events)
    for output in (run_snapshot(state), resume_snapshot(state)):
        assert b"\nid:" not in b"\n" + encode(output)
