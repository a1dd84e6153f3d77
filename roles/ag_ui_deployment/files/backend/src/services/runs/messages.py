"""Builds the messages of a run from its events, as AG-UI clients do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from src.services.agui.events import Event

Message = dict[str, Any]


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(slots=True)
class _Answer:
    """An assistant message; its parts are joined only on demand."""

    id: str
    text: list[str] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)

    def told(self) -> Message:
        message: Message = {"id": self.id, "role": "assistant"}
        if self.text:
            message["content"] = "".join(self.text)
        if self.calls:
            message["toolCalls"] = [call.told() for call in self.calls]
        return message


@dataclass(slots=True)
class _Reasoning:
    id: str
    text: list[str] = field(default_factory=list)

    def told(self) -> Message:
        return {"id": self.id, "role": "reasoning", "content": "".join(self.text)}


class RunMessages:
    """The messages that a run adds to its conversation, in order of their first event."""

    def __init__(self) -> None:
        self._messages: dict[str, _Answer | _Reasoning | Message] = {}
        self._answers: dict[str, _Answer] = {}
        self._reasonings: dict[str, _Reasoning] = {}
        self._calls: dict[str, _Call] = {}
        self._apply: dict[str, Callable[[Event], None]] = {
            "REASONING_MESSAGE_START": self._reason,
            "REASONING_MESSAGE_CONTENT": self._add_reasoning,
            "TEXT_MESSAGE_CONTENT": self._say,
            "TOOL_CALL_START": self._call,
            "TOOL_CALL_ARGS": self._add_arguments,
            "TOOL_CALL_RESULT": self._answer,
        }

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        messages = cls()
        for event in events:
            messages.apply(event)
        return messages

    def apply(self, event: Event) -> None:
        if apply := self._apply.get(event["type"]):
            apply(event)

    def all(self) -> list[Message]:
        """Returns the messages in their wire format."""
        return [
            message if isinstance(message, dict) else message.told()
            for message in self._messages.values()
        ]

    def _reason(self, event: Event) -> None:
        message_id = event["messageId"]
        self._messages[message_id] = self._reasonings[message_id] = _Reasoning(message_id)

    def _add_reasoning(self, event: Event) -> None:
        self._reasonings[event["messageId"]].text.append(event["delta"])

    def _say(self, event: Event) -> None:
        self._of_assistant(event["messageId"]).text.append(event["delta"])

    def _call(self, event: Event) -> None:
        call = self._calls[event["toolCallId"]] = _Call(event["toolCallId"], event["toolCallName"])
        self._of_assistant(event["parentMessageId"]).calls.append(call)

    def _add_arguments(self, event: Event) -> None:
        self._calls[event["toolCallId"]].arguments.append(event["delta"])

    def _answer(self, event: Event) -> None:
        self._messages[event["messageId"]] = {
            "id": event["messageId"],
            "role": "tool",
            "toolCallId": event["toolCallId"],
            "content": event["content"],
        }

    def _of_assistant(self, message_id: str) -> _Answer:
        answer = self._answers.get(message_id)
        if answer is None:
            answer = self._messages[message_id] = self._answers[message_id] = _Answer(message_id)
        return answer
