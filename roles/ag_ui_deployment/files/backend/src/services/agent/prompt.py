"""Converts an AG-UI conversation to the messages of a chat completion request."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import orjson

from src.models.agent_input import RunInput
from src.utils.json_types import JsonObject

# An AG-UI message in wire format.
Message = Mapping[str, Any]


class ChatFunctionCall(TypedDict):
    """The function of a tool call; `arguments` is JSON text."""

    name: str
    arguments: str


class ChatToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: ChatFunctionCall


class ChatMessage(TypedDict):
    """A message of a chat completion request."""

    role: str
    content: str | None
    # Of an assistant message.
    tool_calls: NotRequired[list[ChatToolCall]]
    # Of a tool message: the call that it answers.
    tool_call_id: NotRequired[str]


class ChatFunction(TypedDict):
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject


class ChatTool(TypedDict):
    """A tool of a chat completion request."""

    type: Literal["function"]
    function: ChatFunction


_ROLES = {"developer": "system", "system": "system", "user": "user"}
WITHOUT_TOOLS = "Shield's tools cannot be reached at the moment. Say so where they would be needed."
CALLS_USED_UP = (
    '{"error": "This run has called as many tools as it may; this call was not run. Answer with what'
    ' there is, and say so."}'
)
# The result of a call that has none: providers reject a call without a result.
UNANSWERED = '{"error": "There is no result: the call was not answered."}'
# An empty result: some providers reject an empty string.
EMPTY_RESULT = '""'


def instructions(prompt: str, request: RunInput) -> str:
    """Builds the system message: the operator prompt, then context and state of the client."""
    parts = [prompt.strip()]
    parts += [f"{item.description}: {item.value}" for item in request.context or []]
    if request.state:
        parts.append(f"State of the application, as JSON: {orjson.dumps(request.state).decode()}")
    return "\n\n".join(part for part in parts if part)


def chat_messages(system: str, messages: Sequence[Message]) -> list[ChatMessage]:
    """Converts the messages; each call is followed by its result, as providers require.

    Args:
        system: The system message; empty for none.
        messages: The conversation, as AG-UI messages.

    Returns:
        The messages of a chat completion request. Reasoning and activities are omitted.
    """
    results = {
        message["toolCallId"]: _result_text(message)
        for message in messages
        if message["role"] == "tool"
    }
    converted: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
    for message in messages:
        if message["role"] in _ROLES:
            converted.append(
                {"role": _ROLES[message["role"]], "content": text_of(message["content"])}
            )
        elif message["role"] == "assistant":
            converted += _assistant_messages(message, results)
    return converted


def chat_tool(name: str, description: str, parameters: Mapping[str, Any] | None) -> ChatTool:
    """Builds a tool definition of a chat completion request; its schema is always an object."""
    schema = dict(parameters or {})
    schema.setdefault("type", "object")
    schema.setdefault("properties", {})
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


def _assistant_messages(message: Message, results: Mapping[str, str]) -> list[ChatMessage]:
    calls = message.get("toolCalls") or []
    content = message.get("content") or ""
    if not calls:
        return [{"role": "assistant", "content": content}] if content else []
    tool_calls: list[ChatToolCall] = [
        {
            "id": call["id"],
            "type": "function",
            "function": {
                "name": call["function"]["name"],
                "arguments": _valid_arguments(call["function"]["arguments"]),
            },
        }
        for call in calls
    ]
    answers: list[ChatMessage] = [
        {
            "role": "tool",
            "tool_call_id": call["id"],
            "content": results.get(call["id"], UNANSWERED),
        }
        for call in calls
    ]
    return [{"role": "assistant", "content": content or None, "tool_calls": tool_calls}, *answers]


def _valid_arguments(arguments: str) -> str:
    """Replaces arguments that are not a JSON object, since providers parse them."""
    try:
        return arguments if isinstance(orjson.loads(arguments), dict) else "{}"
    except orjson.JSONDecodeError:
        return "{}"


def text_of(content: str | Sequence[Mapping[str, Any]]) -> str:
    """Returns the text of a content, which is a string or a list of text parts."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content)


def _result_text(message: Message) -> str:
    return text_of(message["content"]) or str(message.get("error") or EMPTY_RESULT)
