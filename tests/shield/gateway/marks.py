"""Directives to the simulator in the arguments of a call, which are all that a gateway forwards.

A mark is `name=value` anywhere in a text, so that it fits into a URL's query, a path or a question:
`https://example.org/?stream=test:4f2a&outcome=failed`.

Jobs:
    stream=NAME: the stream of its events
    outcome=complete|failed|cancelled|silent|stuck|vanished
    speed=N: N times as fast as Shield
    owner=UUID
    answers=NNN: the orchestrator's status code
Tools:
    fault=slow|error|crash|die (the whole server)|strange, each after N seconds with -N
Model:
    fault=slow-N|drip-N|cut|stall
    fault=hold: until `POST /release?contains=TEXT` with a text of the prompt
    fault=NNN: a status code
    fault=overflow: of the context window
    times=N: only the first N calls
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MARK: Final = re.compile(
    r"\b(stream|outcome|speed|owner|answers|fault|times)=([A-Za-z0-9_:.-]*[A-Za-z0-9_])"
)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, Sequence):
        return [text for item in value for text in _texts(item)]
    return []


def marks_in(value: object) -> dict[str, str]:
    """Return the marks of a text, or of all texts in a JSON value."""
    return {match[1]: match[2] for text in _texts(value) for match in _MARK.finditer(text)}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to inject: `slow-3` has the kind `slow` and 3 seconds."""

    kind: str
    seconds: float

    @classmethod
    def of(cls, marks: Mapping[str, Any]) -> Fault:
        """Parse the fault from the marks; its kind is empty if there is none."""
        kind, _, seconds = str(marks.get("fault", "")).partition("-")
        return cls(kind, float(seconds or 0))
