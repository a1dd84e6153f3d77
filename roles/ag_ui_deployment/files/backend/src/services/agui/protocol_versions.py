"""Translates AG-UI events to other versions of the protocol.

Everything is stored and shared in the current version. Clients before 1.0 validate events strictly:
they abort a run that ends with an outcome that their version does not define.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from ag_ui.core import EventType

from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui import events as agui
from src.services.agui.events import Event

_MESSAGES_SNAPSHOT = EventType.MESSAGES_SNAPSHOT.value
_RUN_STARTED = EventType.RUN_STARTED.value
_RUN_FINISHED = EventType.RUN_FINISHED.value
_RUN_ERROR = EventType.RUN_ERROR.value

_UNANSWERED_RESULT = orjson.dumps({"error": "The run ended before this tool was called."}).decode()
# Types of events that differ in at least one other version.
VERSIONED_TYPES = frozenset({_MESSAGES_SNAPSHOT, _RUN_STARTED, _RUN_FINISHED, _RUN_ERROR})


def rendered(
    event: Event, version: ProtocolVersion, unanswered: Sequence[str] = ()
) -> Sequence[Event]:
    """Translates an event of the current version to another version.

    Before 1.0 a call without a result is always one that the client has to run, and sending its
    result starts another run. The open calls of a run that was cancelled or failed therefore get a
    result first.

    Args:
        event: The event in the current version. It is not changed.
        version: The version that the client uses.
        unanswered: The ids of the tool calls of the run that have no result yet.

    Returns:
        The events to send instead, in order.
    """
    if version is CURRENT or event["type"] not in VERSIONED_TYPES:
        return (event,)
    if event["type"] == _RUN_STARTED:
        return ({name: value for name, value in event.items() if name != "protocolVersion"},)
    if event["type"] == _MESSAGES_SNAPSHOT:
        return ({**event, "messages": [_with_text(message) for message in event["messages"]]},)
    if event["type"] == _RUN_ERROR:
        return (*_results(event, unanswered), event)
    return _finished(event, unanswered)


def _finished(event: Event, unanswered: Sequence[str]) -> Sequence[Event]:
    outcome = event["outcome"]
    if outcome == {"type": "success"}:
        return (event,)
    # Before 1.0 only the metadata can hold the complete outcome.
    finished = {**event, "metadata": {**event.get("metadata", {}), "outcome": outcome}}
    if outcome["type"] == "success":
        return ({**finished, "outcome": {"type": "success"}},)
    del finished["outcome"]
    return (*_results(event, unanswered), finished)


def _with_text(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Converts the content of a tool message from parts to a text."""
    if message["role"] != "tool" or isinstance(message["content"], str):
        return message
    return {**message, "content": "\n".join(part["text"] for part in message["content"])}


def _results(terminal: Event, calls: Sequence[str]) -> list[Event]:
    stamp = agui.Stamp(timestamp=terminal["timestamp"])
    return [
        agui.tool_call_result(f"{call}:result", call, _UNANSWERED_RESULT, stamp) for call in calls
    ]
