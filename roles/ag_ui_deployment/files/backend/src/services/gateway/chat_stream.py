"""A model's streamed answer, as the gateway sends it, in pieces that can be used. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_UNREADABLE = 502
_FAILED = 500
# From here on JSON's numbers are not exact for everybody.
_COUNTS_END = 2**53


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A piece of a tool call: `index` says of which; id and name come with the first piece."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens a call took."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """One step of an answer. The usage comes after the finish reason, or not at all."""

    content: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    reasoning: str = ""

    def __bool__(self) -> bool:
        return self != ChatChunk()


class ErrorFrameError(Exception):
    """The gateway reports in mid-stream that the model has failed; `status` as in an answer.

    `overflow`: the conversation does not fit into the model's context.
    """

    def __init__(self, status: int, *, overflow: bool = False) -> None:
        super().__init__(f"error frame {status}")
        self.status = status
        self.overflow = overflow


def is_overflow(error: Any) -> bool:
    """Whether an error of the gateway's means that the conversation is too long for the model."""
    if not isinstance(error, dict):
        return False
    named = (error.get("code"), error.get("type"))
    return "context_length_exceeded" in named or "ContextWindowExceededError" in str(
        error.get("message")
    )


def read_frame(line: str) -> ChatChunk | None:
    """What a line of the stream says; None for lines that say nothing.

    Raises ErrorFrameError, also for what cannot be read.
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
        raise ErrorFrameError(_UNREADABLE) from None
    raise ErrorFrameError(_status(error), overflow=is_overflow(error))


def _chunk(frame: Mapping[str, Any]) -> ChatChunk:
    # The frame with the usage may have no choices.
    choices = frame.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    delta = choice.get("delta") or {}
    return ChatChunk(
        content=_text(delta.get("content")),
        tool_calls=tuple(_piece(piece) for piece in delta.get("tool_calls") or ()),
        finish_reason=choice.get("finish_reason"),
        usage=_usage(frame.get("usage")),
        reasoning=_text(delta.get("reasoning_content")),
    )


def _piece(piece: Mapping[str, Any]) -> ToolCallPiece:
    function = piece.get("function") or {}
    return ToolCallPiece(
        index=int(piece.get("index") or 0),
        id=_text(piece.get("id")) or None,
        name=_text(function.get("name")) or None,
        arguments=_text(function.get("arguments")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str | None):
        raise TypeError
    return value or ""


def _usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """None as well for counts that are none, or that no model can have reached."""
    if not usage:
        return None
    prompt, completion = (usage.get(f"{name}_tokens") or 0 for name in ("prompt", "completion"))
    return Usage(prompt, completion) if _is_count(prompt) and _is_count(completion) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _COUNTS_END


def _status(error: Any) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return int(str(code)) if str(code).isdecimal() else _FAILED
