"""Parses results and errors of tool calls. Performs no I/O.

The gateway responds with 200 also to failed calls, and passes on the texts of exceptions. The kind of
error is therefore derived from the text, and the text is sanitized before it is shown to callers.
"""

import re
from collections.abc import Mapping

import orjson

from src.services.gateway.errors import (
    GatewayBusyError,
    ToolFailedError,
    ToolRejectedError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.utils.errors import FieldFault
from src.utils.json_types import Json

_MESSAGE_MAX = 300
# Characters of a text that are inspected, since tools may return megabytes.
_INSPECTED_MAX = 4000
# The text of the gateway if it could not reach the MCP server or lost the connection: an exception.
_GATEWAY_EXCEPTION = re.compile(r"(\w+(?:Error|Timeout|Exception)|\w*ExceptionGroup): ")
# Exceptions after which the tool was certainly not called.
UNDELIVERED_EXCEPTIONS = frozenset({"ConnectError", "ConnectTimeout"})
# The prefix that the MCP framework adds to exceptions of a tool.
_FRAMEWORK_PREFIX = re.compile(r"^Error (?:calling|executing) tool '?[\w.-]*'?(?:: )?")
_UPSTREAM_TIMED_OUT = "Upstream request timed out"
_UPSTREAM_BUSY = "Rate limited by upstream API"
# Texts of exceptions that are not intended for the caller.
_DEFECT = re.compile(
    _FRAMEWORK_PREFIX.pattern
    + r"|Traceback \(most recent|^[\w.]*(?:Error|Exception|Timeout)(?:\b:|\(|$)"
)
_VALIDATION_ERROR = re.compile(r"\d+ validation errors? for ")
_VALIDATION_CONTEXT = re.compile(r"\s*\[type=[^\n]*$", re.DOTALL)
# Internal details: URLs, addresses, paths, credentials.
_INTERNAL_DETAIL = re.compile(
    r"""[a-z][a-z0-9+.-]{0,30}://\S+
    | (?<![\w/])(?:/[\w.=-]+)+/?
    | (?:/[\w.=-]+){2,}/?
    | \b[a-z]:\\\S+
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b
    | \[(?:[0-9a-f]*:){2,}[0-9a-f.:]*\](?::\d+)?
    | \b[a-z][\w.-]{0,252}:\d{2,5}\b
    | \b\w{0,64}(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization)
      \w{0,64}\b\s*[=:]\s*(?:(?:Bearer|Basic)\s+)?\S+
    | \bBearer\s+\S+
    | \beyJ[\w-]+\.[\w.-]+
    | \bsk-[\w-]+""",
    re.VERBOSE | re.IGNORECASE,
)
_UNPRINTABLE = re.compile(r"[^\S ]+|[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")


def result_of(result: Mapping[str, Json]) -> Json:
    """Extracts the result of a tool: the structured content, else the text as JSON, else the text."""
    structured = result.get("structuredContent")
    if isinstance(structured, dict):
        return structured["result"] if structured.keys() == {"result"} else structured
    text = text_of(result)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def text_of(result: Mapping[str, Json]) -> str:
    """Returns the first text part of a result; empty if there is none."""
    content = result.get("content")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            return str(part["text"])
    return ""


def error_text(result: Mapping[str, Json]) -> str:
    """Returns the text of an error result, truncated to 4000 characters."""
    return text_of(result)[:_INSPECTED_MAX]


def gateway_exception(text: str) -> str | None:
    """Returns the exception of the gateway if it could not reach the MCP server, else None."""
    match = _GATEWAY_EXCEPTION.match(text)
    return match[1] if match else None


def error_of(text: str, arguments: Mapping[str, Json]) -> UpstreamError:
    """Converts the error text of a tool to an exception.

    Args:
        text: The text.
        arguments: The arguments of the call, which may be quoted in the message.
    """
    if text.startswith(_UPSTREAM_TIMED_OUT):
        return UpstreamTimeoutError("What the tool asked did not answer.")
    if text.startswith(_UPSTREAM_BUSY):
        return GatewayBusyError("What the tool asked limits how often it is asked.")
    if faults := validation_faults(text):
        return ToolRejectedError("The tool does not take these arguments.", faults=faults)
    if is_defect(text):
        return ToolFailedError("It reported an error that is not meant for you.")
    return ToolRejectedError(sanitize(text, arguments))


def is_defect(text: str) -> bool:
    """Whether an error text is an unhandled exception and not a message for the caller."""
    return not text.strip() or _DEFECT.search(text) is not None


def validation_faults(text: str) -> list[FieldFault]:
    """Parses a Pydantic validation error of the framework. Returns [] for other texts."""
    message_text = _FRAMEWORK_PREFIX.sub("", text)
    if not _VALIDATION_ERROR.match(message_text):
        return []
    faults: list[FieldFault] = []
    name = ""
    for line in message_text.splitlines()[1:]:
        if not line.startswith(" "):
            name = sanitize(line, {})
        elif name and "[type=" in line:
            message = sanitize(_VALIDATION_CONTEXT.sub("", line), {})
            faults.append(FieldFault(name, message or "is not valid"))
    return faults or [FieldFault("arguments", "are not valid")]


def sanitize(text: str, arguments: Mapping[str, Json]) -> str:
    """Sanitizes a text for callers: one line of at most 300 characters, without internal details.

    Args:
        text: The text.
        arguments: The arguments of the call. Details that occur in them are kept.
    """
    line = " ".join(_UNPRINTABLE.sub(" ", text[:_INSPECTED_MAX]).split())
    sent = orjson.dumps(arguments, default=str).decode()

    def redact(match: re.Match[str]) -> str:
        return match[0] if match[0].rstrip(".,;:'\")") in sent else "[…]"

    redacted = _INTERNAL_DETAIL.sub(redact, line)
    return redacted if len(redacted) <= _MESSAGE_MAX else redacted[: _MESSAGE_MAX - 1] + "…"
