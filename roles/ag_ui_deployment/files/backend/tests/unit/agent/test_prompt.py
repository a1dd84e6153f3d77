"""The messages and tools that the model receives from a conversation."""

from typing import Any

import pytest

from src.models.agent_input import RunInput
from src.services.agent.prompt import (
    EMPTY_RESULT,
    UNANSWERED,
    chat_messages,
    chat_tool,
    instructions,
)

USER = {"id": "u", "role": "user", "content": "Hello"}


def request(**fields: Any) -> RunInput:
    return RunInput.model_validate(
        {"threadId": "thread", "runId": "run", "messages": [USER], **fields}
    )


def call(call_id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "ask", "arguments": arguments}}


class TestInstructions:
    def test_contain_system_prompt_context_and_state(self) -> None:
        given = request(
            context=[{"description": "Language", "value": "Spanish"}], state={"page": 3}
        )
        assert instructions(" Be brief. ", given) == (
            'Be brief.\n\nLanguage: Spanish\n\nState of the application, as JSON: {"page":3}'
        )

    @pytest.mark.parametrize("state", [None, {}, []])
    def test_are_empty_without_prompt_context_and_state(self, state: Any) -> None:
        assert instructions("", request(state=state)) == ""


class TestMessages:
    def test_unsupported_roles_are_converted_or_omitted(self) -> None:
        messages: list[dict[str, Any]] = [
            {"id": "1", "role": "developer", "content": "Obey"},
            {"id": "2", "role": "system", "content": "Listen"},
            {"id": "3", "role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
            {"id": "4", "role": "assistant", "content": "Yes"},
            {"id": "5", "role": "activity", "activityType": "x", "content": {}},
            {"id": "6", "role": "reasoning", "content": "Hm"},
            {"id": "7", "role": "assistant"},
        ]
        assert chat_messages("First", messages) == [
            {"role": "system", "content": "First"},
            {"role": "system", "content": "Obey"},
            {"role": "system", "content": "Listen"},
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "Yes"},
        ]

    def test_each_tool_call_is_followed_by_its_result(self) -> None:
        messages: list[dict[str, Any]] = [
            {"id": "1", "role": "assistant", "toolCalls": [call("a"), call("b"), call("c")]},
            {"id": "2", "role": "user", "content": "Well?"},
            {"id": "3", "role": "tool", "toolCallId": "b", "content": "", "error": "broken"},
            {"id": "4", "role": "tool", "toolCallId": "a", "content": "fine"},
            {"id": "5", "role": "tool", "toolCallId": "of nobody", "content": "?"},
        ]
        assistant, *results, user = chat_messages("", messages)
        assert [one["id"] for one in assistant["tool_calls"]] == ["a", "b", "c"]
        assert [(one["tool_call_id"], one["content"]) for one in results] == [
            ("a", "fine"),
            ("b", "broken"),
            ("c", UNANSWERED),
        ]
        assert user["content"] == "Well?"

    @pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": ""}]])
    def test_empty_result_is_replaced_by_a_text(self, content: Any) -> None:
        messages = [
            {"id": "1", "role": "assistant", "toolCalls": [call("a")]},
            {"id": "2", "role": "tool", "toolCallId": "a", "content": content},
        ]
        assert chat_messages("", messages)[1]["content"] == EMPTY_RESULT

    @pytest.mark.parametrize("arguments", ['{"half', "[1]", "", "3"])
    def test_invalid_arguments_become_an_empty_object(self, arguments: str) -> None:
        messages = [{"id": "1", "role": "assistant", "toolCalls": [call("a", arguments)]}]
        assert chat_messages("", messages)[0]["tool_calls"][0]["function"]["arguments"] == "{}"

    def test_tool_without_parameters_has_an_empty_schema(self) -> None:
        assert chat_tool("ask", "Ask", None)["function"]["parameters"] == {
            "type": "object",
            "properties": {},
        }
