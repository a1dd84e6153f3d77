"""What the gateway's answers to a tool call mean. Pure.

The gateway answers 200 to nearly everything and passes the texts of a tool's exceptions on as they
are, so the case has to be told from the text, and the text made fit to be shown.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from src.services.upstream_errors import ArgumentError

Json = Any

_MESSAGE_MOST = 300
# What the gateway says in a tool's place when it cannot reach the server with the tools, or loses it.
NOT_REACHED = "ConnectError"
LOST = "MCPError"
# An exception that the tool did not mean for its caller.
_DEFECT = re.compile(
    r"^Error calling tool|Traceback \(most recent|^[\w.]*(?:Error|Exception|Timeout)(?:\b:|\(|$)"
)
_REFUSED_ARGUMENTS = re.compile(r"^\d+ validation errors? for ")
_ABOUT_A_VALUE = re.compile(r"\s*\[type=[^\n]*$", re.DOTALL)
# What may tell of the inside: addresses, paths, credentials.
_INSIDE = re.compile(
    r"""[a-z][a-z0-9+.-]*://\S+
    | (?:/[\w.=-]+){2,}/?
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b
    | \b(?:password|passwd|secret|token|api[_-]?key|authorization)\b\s*[=:]\s*\S+
    | \bBearer\s+\S+
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


def is_defect(text: str) -> bool:
    """Whether a tool's error is none that it meant for its caller."""
    return not text.strip() or _DEFECT.search(text) is not None


def refused_arguments(text: str) -> list[ArgumentError]:
    """Which arguments a tool found wrong, from what its framework says; empty if it is not that."""
    if not _REFUSED_ARGUMENTS.match(text):
        return []
    found: list[ArgumentError] = []
    name = ""
    for line in text.splitlines()[1:]:
        if not line.startswith(" "):
            name = presentable(line, {})
        elif name and "[type=" in line:
            message = presentable(_ABOUT_A_VALUE.sub("", line), {})
            found.append(ArgumentError(name, message or "is not valid"))
    return found or [ArgumentError("arguments", "are not valid")]


def presentable(text: str, arguments: Mapping[str, Json]) -> str:
    """A text as a caller may see it: one line, bounded, without what tells of the inside.

    What the caller has sent itself is left as it is.
    """
    line = " ".join(_UNPRINTABLE.sub(" ", text).split())
    sent = orjson.dumps(arguments, default=str).decode()

    def shown(match: re.Match[str]) -> str:
        return match[0] if match[0].rstrip(".,;:'\")") in sent else "[…]"

    cut = _INSIDE.sub(shown, line)
    return cut if len(cut) <= _MESSAGE_MOST else cut[: _MESSAGE_MOST - 1] + "…"
