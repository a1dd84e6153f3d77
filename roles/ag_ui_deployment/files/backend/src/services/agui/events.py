"""Builds AG-UI 1.0 events as plain dicts in their wire format.

Building and serializing the models of `ag_ui.core` would cost more than all other processing of an
event. The tests validate every event built here against these models.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import orjson
from ag_ui.core import PROTOCOL_VERSION, EventType

Event = dict[str, Any]

_ACTIVITY_DELTA = EventType.ACTIVITY_DELTA.value
_ACTIVITY_SNAPSHOT = EventType.ACTIVITY_SNAPSHOT.value
_CUSTOM = EventType.CUSTOM.value
_MESSAGES_SNAPSHOT = EventType.MESSAGES_SNAPSHOT.value
_RAW = EventType.RAW.value
_REASONING_END = EventType.REASONING_END.value
_REASONING_MESSAGE_CONTENT = EventType.REASONING_MESSAGE_CONTENT.value
_REASONING_MESSAGE_END = EventType.REASONING_MESSAGE_END.value
_REASONING_MESSAGE_START = EventType.REASONING_MESSAGE_START.value
_REASONING_START = EventType.REASONING_START.value
_RUN_ERROR = EventType.RUN_ERROR.value
_RUN_FINISHED = EventType.RUN_FINISHED.value
_RUN_STARTED = EventType.RUN_STARTED.value
_STATE_SNAPSHOT = EventType.STATE_SNAPSHOT.value
_STEP_FINISHED = EventType.STEP_FINISHED.value
_STEP_STARTED = EventType.STEP_STARTED.value
_TEXT_MESSAGE_CONTENT = EventType.TEXT_MESSAGE_CONTENT.value
_TEXT_MESSAGE_END = EventType.TEXT_MESSAGE_END.value
_TEXT_MESSAGE_START = EventType.TEXT_MESSAGE_START.value
_TOOL_CALL_ARGS = EventType.TOOL_CALL_ARGS.value
_TOOL_CALL_END = EventType.TOOL_CALL_END.value
_TOOL_CALL_RESULT = EventType.TOOL_CALL_RESULT.value
_TOOL_CALL_START = EventType.TOOL_CALL_START.value


class Stamp(TypedDict, total=False):
    """Optional fields of every event: milliseconds since 1970, and metadata about its source."""

    timestamp: int
    metadata: Mapping[str, Any]


def now() -> Stamp:
    return {"timestamp": int(time.time() * 1000)}


def run_started(thread_id: str, run_id: str, stamp: Stamp) -> Event:
    return {
        "type": _RUN_STARTED,
        **stamp,
        "threadId": thread_id,
        "runId": run_id,
        "protocolVersion": PROTOCOL_VERSION,
    }


def run_finished(thread_id: str, run_id: str, result: Mapping[str, Any], stamp: Stamp) -> Event:
    return {
        "type": _RUN_FINISHED,
        **stamp,
        "threadId": thread_id,
        "runId": run_id,
        "outcome": {"type": "success"},
        "result": result,
    }


def agent_run_finished(
    thread_id: str,
    run_id: str,
    result: Mapping[str, Any],
    pending: Sequence[str],
    stamp: Stamp,
) -> Event:
    """Builds `RUN_FINISHED` for a run of the agent.

    Args:
        thread_id: The id of the conversation.
        run_id: The id of the run.
        result: The result of the run, as JSON.
        pending: The ids of the tool calls that the client has to answer.
        stamp: The timestamp and metadata of the event.

    Returns:
        The event. Its outcome lists the pending calls, if there are any.
    """
    event = run_finished(thread_id, run_id, result, stamp)
    if pending:
        event["outcome"] = {"type": "success", "pendingToolCallIds": list(pending)}
    return event


def run_cancelled(thread_id: str, run_id: str, stamp: Stamp) -> Event:
    return {
        "type": _RUN_FINISHED,
        **stamp,
        "threadId": thread_id,
        "runId": run_id,
        "outcome": {"type": "cancelled"},
    }


def run_error(message: str, code: str | None, stamp: Stamp) -> Event:
    event = {"type": _RUN_ERROR, **stamp, "message": message}
    if code is not None:
        event["code"] = code
    return event


def activity_snapshot(
    message_id: str, activity_type: str, content: Mapping[str, Any], stamp: Stamp
) -> Event:
    return {
        "type": _ACTIVITY_SNAPSHOT,
        **stamp,
        "messageId": message_id,
        "activityType": activity_type,
        "content": content,
    }


def activity_delta(
    message_id: str, activity_type: str, changed: Mapping[str, Any], stamp: Stamp
) -> Event:
    """Builds the changed members of the content of an activity as a JSON Patch.

    `add` replaces an existing member, so applying a delta twice is harmless. The names of members
    contain no character that a JSON pointer escapes.
    """
    return {
        "type": _ACTIVITY_DELTA,
        **stamp,
        "messageId": message_id,
        "activityType": activity_type,
        "patch": [
            {"op": "add", "path": f"/{name}", "value": value} for name, value in changed.items()
        ],
    }


def is_activity_snapshot(event: Event) -> bool:
    return bool(event["type"] == _ACTIVITY_SNAPSHOT)


def state_snapshot(state: Any, stamp: Stamp) -> Event:
    return {"type": _STATE_SNAPSHOT, **stamp, "snapshot": state}


def messages_snapshot(messages: Sequence[bytes], stamp: Stamp) -> Event:
    """Builds `MESSAGES_SNAPSHOT` from messages that are JSON already, without parsing them."""
    fragments = [orjson.Fragment(message) for message in messages]
    return {"type": _MESSAGES_SNAPSHOT, **stamp, "messages": fragments}


def step_started(name: str, stamp: Stamp) -> Event:
    return {"type": _STEP_STARTED, **stamp, "stepName": name}


def step_finished(name: str, stamp: Stamp) -> Event:
    return {"type": _STEP_FINISHED, **stamp, "stepName": name}


def reasoning_start(message_id: str, stamp: Stamp) -> tuple[Event, Event]:
    """Starts a reasoning phase and its only message."""
    return (
        {"type": _REASONING_START, **stamp, "messageId": message_id},
        {
            "type": _REASONING_MESSAGE_START,
            **stamp,
            "messageId": message_id,
            "role": "reasoning",
        },
    )


def reasoning_content(message_id: str, text: str, stamp: Stamp) -> Event:
    return {"type": _REASONING_MESSAGE_CONTENT, **stamp, "messageId": message_id, "delta": text}


def reasoning_end(message_id: str, stamp: Stamp) -> tuple[Event, Event]:
    return (
        {"type": _REASONING_MESSAGE_END, **stamp, "messageId": message_id},
        {"type": _REASONING_END, **stamp, "messageId": message_id},
    )


def text_start(message_id: str, stamp: Stamp) -> Event:
    return {
        "type": _TEXT_MESSAGE_START,
        **stamp,
        "messageId": message_id,
        "role": "assistant",
    }


def text_content(message_id: str, text: str, stamp: Stamp) -> Event:
    return {"type": _TEXT_MESSAGE_CONTENT, **stamp, "messageId": message_id, "delta": text}


def text_end(message_id: str, stamp: Stamp) -> Event:
    return {"type": _TEXT_MESSAGE_END, **stamp, "messageId": message_id}


def tool_call_start(call_id: str, name: str, parent_id: str, stamp: Stamp) -> Event:
    """Builds `TOOL_CALL_START`; `parent_id` is the assistant message that contains the call."""
    return {
        "type": _TOOL_CALL_START,
        **stamp,
        "toolCallId": call_id,
        "toolCallName": name,
        "parentMessageId": parent_id,
    }


def tool_call_args(call_id: str, text: str, stamp: Stamp) -> Event:
    return {"type": _TOOL_CALL_ARGS, **stamp, "toolCallId": call_id, "delta": text}


def tool_call_end(call_id: str, stamp: Stamp) -> Event:
    return {"type": _TOOL_CALL_END, **stamp, "toolCallId": call_id}


def text_message(
    message_id: str, role: Literal["assistant"], text: str, stamp: Stamp
) -> tuple[Event, Event, Event]:
    """Builds the start, content and end of a complete text; `text` must not be empty."""
    return (
        {"type": _TEXT_MESSAGE_START, **stamp, "messageId": message_id, "role": role},
        {"type": _TEXT_MESSAGE_CONTENT, **stamp, "messageId": message_id, "delta": text},
        {"type": _TEXT_MESSAGE_END, **stamp, "messageId": message_id},
    )


def tool_call(call_id: str, name: str, arguments: str, stamp: Stamp) -> tuple[Event, Event, Event]:
    """Builds the start, arguments (JSON text) and end of a complete tool call."""
    return (
        {"type": _TOOL_CALL_START, **stamp, "toolCallId": call_id, "toolCallName": name},
        {"type": _TOOL_CALL_ARGS, **stamp, "toolCallId": call_id, "delta": arguments},
        {"type": _TOOL_CALL_END, **stamp, "toolCallId": call_id},
    )


def tool_call_result(message_id: str, call_id: str, content: str, stamp: Stamp) -> Event:
    return {
        "type": _TOOL_CALL_RESULT,
        **stamp,
        "messageId": message_id,
        "toolCallId": call_id,
        "content": content,
        "role": "tool",
    }


def custom(name: str, value: Any, stamp: Stamp) -> Event:
    return {"type": _CUSTOM, **stamp, "name": name, "value": value}


def raw(event: Mapping[str, Any], source: str, stamp: Stamp) -> Event:
    return {"type": _RAW, **stamp, "event": event, "source": source}
