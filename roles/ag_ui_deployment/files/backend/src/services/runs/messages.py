"""Builds the messages of a run from its events, as AG-UI clients do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from src.services.agui.events import Event

Message = dict[str, Any]


@dataclass(slots=True)
class _MessageToolCall:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(slots=True)
class _AssistantMessage:
    """An assistant message; its parts are joined only on demand."""

    id: str
    text: list[str] = field(default_factory=list)
    calls: list[_MessageToolCall] = field(default_factory=list)

    def to_dict(self) -> Message:
        message: Message = {"id": self.id, "role": "assistant"}
        if self.text:
            message["content"] = "".join(self.text)
        if self.calls:
            message["toolCalls"] = [call.to_dict() for call in self.calls]
        return message


@dataclass(slots=True)
class _ReasoningMessage:
    id: str
    text: list[str] = field(default_factory=list)

    def to_dict(self) -> Message:
        return {"id": self.id, "role": "reasoning", "content": "".join(self.text)}


class RunMessages:
    """The messages that a run adds to its conversation, in order of their first event."""

    def __init__(self) -> None:
        self._messages: dict[str, _AssistantMessage | _ReasoningMessage | Message] = {}
        self._assistant_messages: dict[str, _AssistantMessage] = {}
        self._reasonings: dict[str, _ReasoningMessage] = {}
        self._calls: dict[str, _MessageToolCall] = {}
        self._handlers: dict[str, Callable[[Event], None]] = {
            "REASONING_MESSAGE_START": self._start_reasoning,
            "REASONING_MESSAGE_CONTENT": self._add_reasoning,
            "TEXT_MESSAGE_CONTENT": self._add_text,
            "TOOL_CALL_START": self._call,
            "TOOL_CALL_ARGS": self._add_arguments,
            "TOOL_CALL_RESULT": self._add_result,
        }

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        messages = cls()
        for event in events:
            messages.apply(event)
        return messages

    def apply(self, event: Event) -> None:
        if handler := self._handlers.get(event["type"]):
            handler(event)

    def all(self) -> list[Message]:
        """Returns the messages in their wire format."""
        return [
            message if isinstance(message, dict) else message.to_dict()
            for message in self._messages.values()
        ]

    def _start_reasoning(self, event: Event) -> None:
        message_id = event["messageId"]
        self._messages[message_id] = self._reasonings[message_id] = _ReasoningMessage(message_id)

    def _add_reasoning(self, event: Event) -> None:
        self._reasonings[event["messageId"]].text.append(event["delta"])

    def _add_text(self, event: Event) -> None:
        self._assistant_message(event["messageId"]).text.append(event["delta"])

    def _call(self, event: Event) -> None:
        call = self._calls[event["toolCallId"]] = _MessageToolCall(
            event["toolCallId"], event["toolCallName"]
        )
        self._assistant_message(event["parentMessageId"]).calls.append(call)

    def _add_arguments(self, event: Event) -> None:
        self._calls[event["toolCallId"]].arguments.append(event["delta"])

    def _add_result(self, event: Event) -> None:
        self._messages[event["messageId"]] = {
            "id": event["messageId"],
            "role": "tool",
            "toolCallId": event["toolCallId"],
            "content": event["content"],
        }

    def _assistant_message(self, message_id: str) -> _AssistantMessage:
        message = self._assistant_messages.get(message_id)
        if message is None:
            message = self._messages[message_id] = self._assistant_messages[message_id] = (
                _AssistantMessage(message_id)
            )
        return message
