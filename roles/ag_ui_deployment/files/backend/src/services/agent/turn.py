"""Transforms the chunks of one chat completion into AG-UI events. No I/O."""

from dataclasses import dataclass, field
from uuid import uuid4

from src.services.agent.tool_arguments import ToolArguments
from src.services.agui import events as agui
from src.services.agui.events import Event, now
from src.services.gateway.chat_stream import ChatChunk, ToolCallFragment

# A model that calls more tools than this in one answer is malfunctioning.
CALLS_MAX = 128
_UNKNOWN_NAME = "unknown"


@dataclass(slots=True)
class ToolCall:
    """A tool call of the model.

    The id is generated here, because some models restart their numbering in every answer, and a
    client would treat a repeated id as the same call.
    """

    # The id from the model, if any.
    provider_id: str | None = None
    id: str = field(default_factory=lambda: f"call_{uuid4().hex[:24]}")
    name: str = ""
    streamed: ToolArguments = field(default_factory=ToolArguments)

    @property
    def arguments(self) -> str:
        """The arguments received so far, as JSON text."""
        return str(self.streamed)


class Turn:
    """One answer of the model.

    Text and calls belong to one assistant message, `message_id`. Both stay open until the end,
    since a model may continue either after starting the other. Reasoning is a separate message,
    which ends when text or calls follow.
    """

    def __init__(self) -> None:
        self.message_id = f"msg_{uuid4().hex}"
        # Why the model stopped; None if it has not reported it.
        self.finish_reason: str | None = None
        self._text_started = False
        # The id of the open reasoning message.
        self._reasoning_id: str | None = None
        self.calls: list[ToolCall] = []
        # By index and the id from the model. The key with None has the latest call at that index.
        self._calls_by_key: dict[tuple[int, str | None], ToolCall] = {}

    @property
    def has_too_many_calls(self) -> bool:
        """Whether there are more than CALLS_MAX calls; further calls are ignored."""
        return len(self.calls) > CALLS_MAX

    def feed(self, chunk: ChatChunk) -> list[Event]:
        """Adds a chunk; returns the events to send."""
        events = self._add_reasoning(chunk.reasoning)
        if chunk.content or chunk.tool_calls:
            events += self._end_reasoning()
        events += self._add_text(chunk.content)
        for fragment in chunk.tool_calls:
            if self.has_too_many_calls:
                break
            events += self._add_to_call(fragment)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        return events

    def end(self) -> list[Event]:
        """Returns the events that close the open message, calls and reasoning."""
        events = self._end_reasoning()
        events += [agui.text_end(self.message_id, now())] if self._text_started else []
        for call in self.calls:
            events += [] if call.name else self._start(call, _UNKNOWN_NAME)
            events += _arguments(call, call.streamed.finish())
            events.append(agui.tool_call_end(call.id, now()))
        return events

    def _add_reasoning(self, text: str) -> list[Event]:
        if not text:
            return []
        events: list[Event] = []
        if self._reasoning_id is None:
            self._reasoning_id = f"reasoning_{uuid4().hex}"
            events += agui.reasoning_start(self._reasoning_id, now())
        return [*events, agui.reasoning_content(self._reasoning_id, text, now())]

    def _end_reasoning(self) -> list[Event]:
        if self._reasoning_id is None:
            return []
        events = agui.reasoning_end(self._reasoning_id, now())
        self._reasoning_id = None
        return list(events)

    def _add_text(self, text: str) -> list[Event]:
        if not text:
            return []
        events = [] if self._text_started else [agui.text_start(self.message_id, now())]
        self._text_started = True
        return [*events, agui.text_content(self.message_id, text, now())]

    def _add_to_call(self, fragment: ToolCallFragment) -> list[Event]:
        call = self._call_for(fragment)
        events = self._start(call, fragment.name) if fragment.name and not call.name else []
        new = call.streamed.add(fragment.arguments)
        return [*events, *(_arguments(call, new) if call.name else [])]

    def _call_for(self, fragment: ToolCallFragment) -> ToolCall:
        call = self._calls_by_key.get((fragment.index, fragment.id)) or self._calls_by_key.get(
            (fragment.index, None)
        )
        if call is None or _starts_new_call(call, fragment):
            call = ToolCall()
            self.calls.append(call)
        if fragment.id and call.provider_id is None:
            call.provider_id = fragment.id
            self._calls_by_key[fragment.index, fragment.id] = call
        self._calls_by_key[fragment.index, None] = call
        return call

    def _start(self, call: ToolCall, name: str) -> list[Event]:
        """Starts a call; sends the arguments that arrived before its name."""
        call.name = name
        return [
            agui.tool_call_start(call.id, name, self.message_id, now()),
            *_arguments(call, call.arguments),
        ]


def _starts_new_call(call: ToolCall, fragment: ToolCallFragment) -> bool:
    """Whether a fragment at the index of a call starts another call. Only a name can.

    Some models give all calls the same index, with or without ids. Some gateways give every
    fragment another id, or repeat the name in every fragment. A repeated name continues a call
    whose arguments are incomplete. Without ids, a fragment that repeats name and arguments is the
    same call again.
    """
    if not fragment.name or not call.name:
        return False
    if fragment.name != call.name:
        return True
    if call.streamed.is_partial:
        return False
    if fragment.id and call.provider_id:
        return fragment.id != call.provider_id
    return call.streamed.is_complete and not call.streamed.is_repeated_by(fragment.arguments)


def _arguments(call: ToolCall, text: str) -> list[Event]:
    return [agui.tool_call_args(call.id, text, now())] if text else []
