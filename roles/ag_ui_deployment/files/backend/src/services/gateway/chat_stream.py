"""Parses the chunks of a streamed chat completion. Performs no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_UNREADABLE_STATUS = 502
_DEFAULT_STATUS = 500
# Greater integers are not exact in all JSON parsers.
_COUNT_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class ToolCallFragment:
    """A fragment of the tool call `index`. Usually only its first fragment has an id and a name."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """The token usage of a chat completion."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """One chunk of a completion. The usage comes after the finish reason, if at all."""

    content: str = ""
    tool_calls: tuple[ToolCallFragment, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    reasoning: str = ""

    def __bool__(self) -> bool:
        return self != ChatChunk()


class ErrorFrameError(Exception):
    """The gateway reports in mid-stream that the model has failed.

    Attributes:
        status: The HTTP status of the error.
        overflow: Whether the conversation exceeds the context window of the model.
    """

    def __init__(self, status: int, *, overflow: bool = False) -> None:
        super().__init__(f"error frame {status}")
        self.status = status
        self.overflow = overflow


def is_overflow(error: Any) -> bool:
    """Whether an error object of the gateway means that the context window is exceeded."""
    if not isinstance(error, dict):
        return False
    identifiers = (error.get("code"), error.get("type"))
    return "context_length_exceeded" in identifiers or "ContextWindowExceededError" in str(
        error.get("message")
    )


def read_frame(line: str) -> ChatChunk | None:
    """Parses a line of the stream.

    Returns:
        The chunk; None for lines without data and for the end marker.

    Raises:
        ErrorFrameError: The line is an error of the gateway, or cannot be parsed.
    """
    if not line.startswith("data:"):
        return None
    text = line[5:].strip()
    if not text or text == "[DONE]":
        return None
    try:
        frame = orjson.loads(text)
        if (error := frame.get("error")) is None:
            return _chunk(frame)
    except (ValueError, TypeError, AttributeError):
        raise ErrorFrameError(_UNREADABLE_STATUS) from None
    raise ErrorFrameError(_status(error), overflow=is_overflow(error))


def _chunk(frame: Mapping[str, Any]) -> ChatChunk:
    # The chunk with the usage may have no choices.
    choices = frame.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    delta = choice.get("delta") or {}
    return ChatChunk(
        content=_text(delta.get("content")),
        tool_calls=tuple(_fragment(fragment) for fragment in delta.get("tool_calls") or ()),
        finish_reason=choice.get("finish_reason"),
        usage=_usage(frame.get("usage")),
        reasoning=_text(delta.get("reasoning_content")),
    )


def _fragment(fragment: Mapping[str, Any]) -> ToolCallFragment:
    function = fragment.get("function") or {}
    return ToolCallFragment(
        index=int(fragment.get("index") or 0),
        id=_text(fragment.get("id")) or None,
        name=_text(function.get("name")) or None,
        arguments=_text(function.get("arguments")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str | None):
        raise TypeError
    return value or ""


def _usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Returns the usage; None if it is missing or its counts are implausible."""
    if not usage:
        return None
    prompt, completion = (usage.get(f"{name}_tokens") or 0 for name in ("prompt", "completion"))
    return Usage(prompt, completion) if _is_count(prompt) and _is_count(completion) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _COUNT_LIMIT


def _status(error: Any) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return int(str(code)) if str(code).isdecimal() else _DEFAULT_STATUS
