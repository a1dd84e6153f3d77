"""Which parts of a client's input are accepted."""

from typing import Any

from src.models.agent_input import RunInput

THEIRS = {"x": "unknown"}


def conversation_of(*messages: dict[str, Any]) -> Any:
    request = {"threadId": "thread", "runId": "run", "messages": list(messages), **THEIRS}
    return RunInput.model_validate(request).conversation


class TestUnknownFields:
    def test_are_dropped_at_every_level(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "ask", "arguments": "{}"}}
        known: list[dict[str, Any]] = [
            {"id": "1", "role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"id": "2", "role": "assistant", "content": "Hm", "toolCalls": [call]},
            {"id": "3", "role": "tool", "toolCallId": "c", "content": "7"},
            {"id": "4", "role": "activity", "activityType": "t", "content": {"any": THEIRS}},
        ]
        given = [message | THEIRS for message in known]
        given[0]["content"] = [{"type": "text", "text": "Hello"} | THEIRS]
        function = call["function"] | THEIRS  # type: ignore[operator]  # it is a dict
        given[1]["toolCalls"] = [call | THEIRS | {"function": function}]
        assert conversation_of(*given) == known

    def test_are_kept_in_metadata(self) -> None:
        message = {"id": "1", "role": "user", "content": "Hello", "metadata": THEIRS}
        assert conversation_of(message) == [message]
