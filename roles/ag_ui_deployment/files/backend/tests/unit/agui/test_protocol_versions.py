"""Conversion of current events to older protocol versions."""

import pytest

from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui import events as agui
from src.services.agui.events import Event, Stamp
from src.services.agui.protocol_versions import rendered
from src.services.agui.sse import encode, marker, translated
from tests.run_checker import events_of, parse_frames
from tests.support.builders import stream_id

OLDER = ProtocolVersion.V0_0
NOW: Stamp = {"timestamp": 1}
CANCELLED = agui.run_cancelled("t", "r", {**NOW, "metadata": {"job_id": "j"}})
PENDING = agui.agent_run_finished("t", "r", {"rounds": 1}, ["c1"], NOW)
ENDS = [
    CANCELLED,
    PENDING,
    agui.run_finished("t", "r", {}, NOW),
    agui.run_error("failed", "code", NOW),
]


@pytest.mark.parametrize("event", [*ENDS, agui.run_started("t", "r", NOW)])
def test_current_version_leaves_events_unchanged(event: Event) -> None:
    assert rendered(event, CURRENT, ["c1"]) == (event,)


def test_version_0_0_declares_no_version() -> None:
    (started,) = rendered(agui.run_started("t", "r", NOW), OLDER)
    assert started == {"type": "RUN_STARTED", "timestamp": 1, "threadId": "t", "runId": "r"}


def test_version_0_0_cancelled_run_has_results_and_no_outcome() -> None:
    result, finished = rendered(CANCELLED, OLDER, ["c1"])
    assert result["type"] == "TOOL_CALL_RESULT"
    assert (result["toolCallId"], result["messageId"]) == ("c1", "c1:result")
    assert "error" in result["content"]
    assert "outcome" not in finished
    assert finished["metadata"] == {"job_id": "j", "outcome": {"type": "cancelled"}}


def test_version_0_0_failed_run_has_a_result_for_every_call() -> None:
    result, error = rendered(ENDS[-1], OLDER, ["c1"])
    assert result["type"] == "TOOL_CALL_RESULT"
    assert error == ENDS[-1]


def test_version_0_0_keeps_pending_calls_in_the_metadata() -> None:
    (finished,) = rendered(PENDING, OLDER, ["c1"])
    assert finished["outcome"] == {"type": "success"}
    assert finished["metadata"] == {"outcome": PENDING["outcome"]}
    assert finished["result"] == {"rounds": 1}


def test_version_0_0_tool_result_is_a_string() -> None:
    parts = [{"type": "text", "text": "All"}, {"type": "text", "text": "fine"}]
    result = {"id": "t", "role": "tool", "toolCallId": "c", "content": parts}
    others = [{"id": "u", "role": "user", "content": parts}, {"id": "a", "role": "assistant"}]
    event = {"type": "MESSAGES_SNAPSHOT", **NOW, "messages": [*others, result]}
    (snapshot,) = rendered(event, OLDER)
    assert snapshot["messages"] == [*others, result | {"content": "All\nfine"}]
    assert result["content"] == parts


@pytest.mark.parametrize("event", ENDS)
def test_conversion_does_not_modify_the_event(event: Event) -> None:
    before = encode([event])
    rendered(event, OLDER, ["c1"])
    assert encode([event]) == before


class TestFrames:
    def test_conversion_keeps_ids(self) -> None:
        awkward = agui.custom("event: RUN_FINISHED\n", "\n\nevent: RUN_FINISHED\ndata: ", NOW)
        frames = (
            encode([agui.run_started("t", "r", NOW), awkward], stream_id(1))
            + marker(stream_id(2))
            + encode([awkward, CANCELLED], stream_id(3))
            + encode([agui.run_error("failed", None, NOW)], stream_id(4))
        )
        before, after = parse_frames(frames), parse_frames(translated(frames, OLDER))
        assert [frame.id for frame in after] == [frame.id for frame in before]
        events = events_of(before)
        expected = [one for event in events for one in rendered(event, OLDER)]
        assert events_of(after) == expected

    def test_unchanged_frames_are_not_copied(self) -> None:
        frames = encode([agui.custom("event: RUN_FINISHED", 1, NOW)], stream_id(1))
        assert translated(frames, OLDER) is frames
        ending = encode([CANCELLED])
        assert translated(ending, CURRENT) is ending
