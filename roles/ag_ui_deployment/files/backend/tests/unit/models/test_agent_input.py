"""Which parts of a client's input are accepted."""

from typing import Any

import pytest
from pydantic import ValidationError

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


USER = {"id": "u", "role": "user", "content": "Hello"}


def request(**fields: Any) -> RunInput:
    return RunInput.model_validate(
        {"threadId": "thread", "runId": "run", "messages": [USER], **fields}
    )


class TestFields:
    def test_workspace_is_read_from_forwarded_props(self) -> None:
        assert request().workspace == "default"
        assert request(forwardedProps={"workspace": "red"}).workspace == "red"

    def test_duplicate_message_id_keeps_first_position_and_last_content(self) -> None:
        other, changed = USER | {"id": "v"}, USER | {"content": "Good morning"}
        given = request(messages=[USER, other, USER, changed])
        assert [(one.id, one.content) for one in given.messages] == [
            ("u", "Good morning"),
            ("v", "Hello"),
        ]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("threadId", "with/slash"),
            ("runId", ""),
            ("runId", "x" * 201),
            ("messages", [USER | {"role": "stranger"}]),
            ("messages", [USER | {"id": "with\nline"}]),
            ("messages", [USER | {"metadata": {"huge": 10**30}}]),
            (
                "messages",
                [USER | {"content": [{"type": "image", "source": {"type": "url", "value": "x"}}]}],
            ),
            ("tools", [{"name": "two words", "description": ""}]),
            ("tools", [{"name": "a", "description": "", "parameters": 3}]),
            ("tools", [{"name": "a", "description": ""}] * 2),
            ("state", {"broken": "\ud800"}),
            ("state", 10**30),
            ("context", [{"description": "no value"}]),
            ("forwardedProps", ["workspace"]),
            ("forwardedProps", {"workspace": 3}),
            ("resume", [{"interruptId": "i", "status": "resolved"}]),
        ],
    )
    def test_invalid_field_is_reported(self, field: str, value: Any) -> None:
        with pytest.raises(ValidationError) as refused:
            request(**{field: value})
        assert refused.value.errors()[0]["loc"][0] == field
