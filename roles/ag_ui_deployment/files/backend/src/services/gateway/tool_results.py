"""What the gateway's answers to a tool call mean. Pure.

The gateway answers 200 to nearly everything and passes the texts of a tool's exceptions on as they
are, so the case has to be told from the text, and the text made fit to be shown.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from src.services.gateway.errors import (
    GatewayBusyError,
    ToolFailedError,
    ToolRejectedError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.utils.errors import FieldFault

Json = Any

_MESSAGE_MAX = 300
# So much of a text is looked at, in characters: tools may say megabytes.
_LOOKED_AT = 4000
# What the gateway says in a tool's place: the exception with which it could not reach the server
# with the tools, or lost it.
_OF_THE_GATEWAY = re.compile(r"(\w+(?:Error|Timeout|Exception)|\w*ExceptionGroup): ")
# Those of them after which the tool has certainly not been called.
NEVER_ARRIVED = frozenset({"ConnectError", "ConnectTimeout"})
# What the tool's framework says in its place.
_OF_THE_FRAMEWORK = re.compile(r"^Error (?:calling|executing) tool '?[\w.-]*'?(?:: )?")
_UPSTREAM_TIMED_OUT = "Upstream request timed out"
_UPSTREAM_BUSY = "Rate limited by upstream API"
# An exception that the tool did not mean for its caller.
_DEFECT = re.compile(
    _OF_THE_FRAMEWORK.pattern
    + r"|Traceback \(most recent|^[\w.]*(?:Error|Exception|Timeout)(?:\b:|\(|$)"
)
_REFUSED_ARGUMENTS = re.compile(r"\d+ validation errors? for ")
_ABOUT_A_VALUE = re.compile(r"\s*\[type=[^\n]*$", re.DOTALL)
# What may tell of the inside: addresses, paths, credentials.
_INSIDE = re.compile(
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


def result_of(answer: Mapping[str, Json]) -> Json:
    """The result of a tool: what is structured first, then JSON in the text, then the text."""
    structured = answer.get("structuredContent")
    if isinstance(structured, dict):
        return structured["result"] if structured.keys() == {"result"} else structured
    text = text_of(answer)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def text_of(answer: Mapping[str, Json]) -> str:
    content = answer.get("content")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            return str(part["text"])
    return ""


def error_text(answer: Mapping[str, Json]) -> str:
    """What an answer with an error says, as far as it is looked at."""
    return text_of(answer)[:_LOOKED_AT]


def lost_by(text: str) -> str | None:
    """The exception with which the gateway lost the server with the tools, None if it did not."""
    match = _OF_THE_GATEWAY.match(text)
    return match[1] if match else None


def error_of(text: str, arguments: Mapping[str, Json]) -> UpstreamError:
    """What the error of a tool means that has answered."""
    if text.startswith(_UPSTREAM_TIMED_OUT):
        return UpstreamTimeoutError("What the tool asked did not answer.")
    if text.startswith(_UPSTREAM_BUSY):
        return GatewayBusyError("What the tool asked limits how often it is asked.")
    if faults := refused_arguments(text):
        return ToolRejectedError("The tool does not take these arguments.", faults=faults)
    if is_defect(text):
        return ToolFailedError("It reported an error that is not meant for you.")
    return ToolRejectedError(presentable(text, arguments))


def is_defect(text: str) -> bool:
    """Whether a tool's error is none that it meant for its caller."""
    return not text.strip() or _DEFECT.search(text) is not None


def refused_arguments(text: str) -> list[FieldFault]:
    """Which arguments a tool found wrong, from what its framework says; empty if it is not that."""
    own = _OF_THE_FRAMEWORK.sub("", text)
    if not _REFUSED_ARGUMENTS.match(own):
        return []
    found: list[FieldFault] = []
    name = ""
    for line in own.splitlines()[1:]:
        if not line.startswith(" "):
            name = presentable(line, {})
        elif name and "[type=" in line:
            message = presentable(_ABOUT_A_VALUE.sub("", line), {})
            found.append(FieldFault(name, message or "is not valid"))
    return found or [FieldFault("arguments", "are not valid")]


def presentable(text: str, arguments: Mapping[str, Json]) -> str:
    """A text as a caller may see it: one line, bounded, without what tells of the inside.

    What the caller has sent itself is left as it is.
    """
    line = " ".join(_UNPRINTABLE.sub(" ", text[:_LOOKED_AT]).split())
    sent = orjson.dumps(arguments, default=str).decode()

    def shown(match: re.Match[str]) -> str:
        return match[0] if match[0].rstrip(".,;:'\")") in sent else "[…]"

    cut = _INSIDE.sub(shown, line)
    return cut if len(cut) <= _MESSAGE_MAX else cut[: _MESSAGE_MAX - 1] + "…"
