"""Converts chunks of a model's stream to AG-UI events, and events to messages."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.services.agent.turn import CALLS_MAX, Turn
from src.services.agui.events import Event, now, run_error, run_started
from src.services.gateway.chat_stream import ChatChunk, ToolCallFragment
from src.services.runs.messages import RunMessages
from tests.run_checker import check_run


def events_of(chunks: Iterable[ChatChunk]) -> tuple[Turn, list[Event]]:
    turn = Turn()
    events = [event for chunk in chunks for event in turn.feed(chunk)]
    return turn, [*events, *turn.end()]


def said(*texts: str) -> list[ChatChunk]:
    return [ChatChunk(content=text) for text in texts]


def called(*pieces: ToolCallFragment) -> list[ChatChunk]:
    return [ChatChunk(tool_calls=(piece,)) for piece in pieces]


def calls_of(*pieces: ToolCallFragment) -> list[tuple[str, str]]:
    """Return names and arguments of the calls in the client's messages."""
    messages = RunMessages.of(events_of(called(*pieces))[1]).all()
    functions = [call["function"] for message in messages for call in message["toolCalls"]]
    return [(function["name"], function["arguments"]) for function in functions]


def kinds(events: Sequence[Event]) -> list[str]:
    return [event["type"] for event in events]


CHUNKS = st.lists(
    st.builds(
        ChatChunk,
        reasoning=st.sampled_from(("", "", "hm ")),
        content=st.sampled_from(("", "a", "word ")),
        tool_calls=st.lists(
            st.builds(
                ToolCallFragment,
                index=st.integers(0, 2),
                id=st.sampled_from((None, "a", "b")),
                name=st.sampled_from((None, "crawl_web", "ask")),
                arguments=st.sampled_from(("", '{"a"', ": 1}")),
            ),
            max_size=2,
        ).map(tuple),
        finish_reason=st.sampled_from((None, None, "stop")),
    ),
    max_size=12,
)


class TestText:
    def test_deltas_are_forwarded_unmerged(self) -> None:
        _, events = events_of(said("Hel", "", "lo"))
        assert kinds(events) == [
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END",
        ]
        assert [event["delta"] for event in events[1:3]] == ["Hel", "lo"]

    def test_empty_deltas_produce_no_events(self) -> None:
        assert events_of(said("", ""))[1] == []


class TestReasoning:
    def test_reasoning_precedes_the_answer_in_its_own_message(self) -> None:
        turn, events = events_of(
            [
                ChatChunk(reasoning="Let me "),
                ChatChunk(reasoning="think"),
                *said("Well"),
                *called(ToolCallFragment(0, name="one")),
            ]
        )
        assert kinds(events)[:6] == [
            "REASONING_START",
            "REASONING_MESSAGE_START",
            "REASONING_MESSAGE_CONTENT",
            "REASONING_MESSAGE_CONTENT",
            "REASONING_MESSAGE_END",
            "REASONING_END",
        ]
        reasoning, answer = RunMessages.of(events).all()
        assert (reasoning["role"], reasoning["content"]) == ("reasoning", "Let me think")
        assert answer["id"] == turn.message_id

    def test_reasoning_after_text_starts_a_new_message(self) -> None:
        _, events = events_of([ChatChunk(reasoning="a"), *said("b"), ChatChunk(reasoning="c")])
        messages = RunMessages.of(events).all()
        assert [one["content"] for one in messages if one["role"] == "reasoning"] == ["a", "c"]


class TestToolCalls:
    def test_call_ids_are_generated_and_refer_to_the_message(self) -> None:
        pieces = [ToolCallFragment(0, "call_1", "ask"), ToolCallFragment(0, arguments='{"a": 1}')]
        first, events = events_of([*said("Wait"), *called(*pieces)])
        second, _ = events_of(called(*pieces))
        start = next(event for event in events if event["type"] == "TOOL_CALL_START")
        assert start["parentMessageId"] == first.message_id
        assert start["toolCallId"] == first.calls[0].id
        assert first.calls[0].id != second.calls[0].id
        assert first.calls[0].arguments == '{"a": 1}'

    def test_interleaved_calls_are_separated_by_index(self) -> None:
        turn, _ = events_of(
            called(
                ToolCallFragment(0, name="one", arguments="{"),
                ToolCallFragment(1, name="two", arguments="[1"),
                ToolCallFragment(0, arguments="}"),
                ToolCallFragment(1, arguments="]"),
            )
        )
        assert [(call.name, call.arguments) for call in turn.calls] == [
            ("one", "{}"),
            ("two", "[1]"),
        ]

    def test_complete_calls_with_the_same_index_are_separate(self) -> None:
        turn, events = events_of(
            called(
                ToolCallFragment(0, "a", "one", '{"a":1}'),
                ToolCallFragment(0, "b", "two", '{"b":2}'),
            )
        )
        assert [(call.name, call.arguments) for call in turn.calls] == [
            ("one", '{"a":1}'),
            ("two", '{"b":2}'),
        ]
        assert kinds(events).count("TOOL_CALL_START") == 2

    @pytest.mark.parametrize("name", [None, "one"], ids=["named once", "named in every piece"])
    def test_changing_ids_with_one_index_are_one_call(self, name: str | None) -> None:
        assert calls_of(
            ToolCallFragment(0, "a", "one", '{"a":'),
            ToolCallFragment(0, "b", name, ' "\\"}'),
            ToolCallFragment(0, "c", name, '"}'),
            ToolCallFragment(0, "d"),
        ) == [("one", '{"a": "\\"}"}')]

    def test_calls_with_the_same_index_and_name_are_separated_by_id(self) -> None:
        assert calls_of(
            ToolCallFragment(0, "a", "one"),
            ToolCallFragment(0, "b", "one"),
            ToolCallFragment(0, "a", arguments='{"a":1}'),
            ToolCallFragment(0, "b", arguments='{"b":2}'),
        ) == [("one", '{"a":1}'), ("one", '{"b":2}')]

    @pytest.mark.parametrize("indexes", [(0, 0, 0), (0, 1, 2)], ids=["one index", "three indexes"])
    def test_without_ids_a_name_starts_a_call(self, indexes: tuple[int, int, int]) -> None:
        first, second, third = indexes
        assert calls_of(
            ToolCallFragment(first, name="one", arguments='{"a":'),
            ToolCallFragment(first, arguments="1}"),
            ToolCallFragment(second, name="one", arguments='{"a":2}'),
            ToolCallFragment(third, name="two"),
            ToolCallFragment(third, arguments='{"b":3}'),
        ) == [("one", '{"a":1}'), ("one", '{"a":2}'), ("two", '{"b":3}')]

    def test_without_ids_a_repeated_name_continues_the_call(self) -> None:
        assert calls_of(
            ToolCallFragment(0, name="one"),
            ToolCallFragment(0, name="one", arguments='{"a":'),
            ToolCallFragment(0, name="one", arguments="1}"),
        ) == [("one", '{"a":1}')]

    @pytest.mark.parametrize("arguments", ['{"a":{"b":"}"}}', "{}"])
    @pytest.mark.parametrize("name", [None, "one"], ids=["named once", "named in every piece"])
    @pytest.mark.parametrize("call_id", [None, "a"], ids=["no id", "an id"])
    def test_repeated_complete_arguments_are_kept_once(
        self, arguments: str, name: str | None, call_id: str | None
    ) -> None:
        assert calls_of(
            ToolCallFragment(0, call_id, "one", arguments),
            ToolCallFragment(0, call_id, name, arguments),
        ) == [("one", arguments)]

    def test_empty_object_before_the_arguments_is_discarded(self) -> None:
        assert calls_of(
            ToolCallFragment(0, "a", "one", "{}"),
            ToolCallFragment(0, arguments='{"a"'),
            ToolCallFragment(0, arguments=":1}"),
        ) == [("one", '{"a":1}')]

    def test_arguments_before_the_name_are_kept(self) -> None:
        turn, events = events_of(
            called(
                ToolCallFragment(0, arguments='{"a"'),
                ToolCallFragment(0, name="one", arguments=":1}"),
            )
        )
        deltas = "".join(event["delta"] for event in events if event["type"] == "TOOL_CALL_ARGS")
        assert deltas == turn.calls[0].arguments == '{"a":1}'

    def test_call_without_arguments_has_an_empty_object(self) -> None:
        turn, events = events_of(called(ToolCallFragment(0, name="one")))
        assert kinds(events) == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
        assert turn.calls[0].arguments == "{}"

    def test_events_stop_at_the_maximum_number_of_calls(self) -> None:
        pieces = tuple(ToolCallFragment(number, name="one") for number in range(CALLS_MAX))
        turn = Turn()
        assert len(turn.feed(ChatChunk(tool_calls=pieces))) == CALLS_MAX
        at_most = turn.has_too_many_calls
        further = tuple(ToolCallFragment(CALLS_MAX + number, name="two") for number in range(9))
        events = turn.feed(ChatChunk(tool_calls=further))
        assert (at_most, turn.has_too_many_calls) == (False, True)
        assert kinds(events) == ["TOOL_CALL_START"]


class TestAnyResponse:
    @given(CHUNKS)
    def test_events_form_a_valid_run(self, chunks: list[ChatChunk]) -> None:
        _, events = events_of(chunks)
        check_run([run_started("t", "r", now()), *events, run_error("over", "x", now())])

    @given(CHUNKS)
    def test_messages_match_the_chunks(self, chunks: list[ChatChunk]) -> None:
        turn, events = events_of(chunks)
        text = "".join(chunk.content for chunk in chunks)
        expected: dict[str, Any] = {"id": turn.message_id, "role": "assistant"}
        if text:
            expected["content"] = text
        if turn.calls:
            # In the order in which the calls' names arrived.
            begun = [event["toolCallId"] for event in events if "toolCallName" in event]
            expected["toolCalls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in sorted(turn.calls, key=lambda one: begun.index(one.id))
            ]
        reasoning = "".join(chunk.reasoning for chunk in chunks)
        messages = RunMessages.of(events).all()
        responses = [one for one in messages if one["role"] == "assistant"]
        thought = [one["content"] for one in messages if one["role"] == "reasoning"]
        assert "".join(thought) == reasoning
        assert responses == ([expected] if len(expected) > 2 else [])
