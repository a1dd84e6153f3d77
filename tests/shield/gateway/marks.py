"""What a test asks of the simulator inside the arguments of a call, which are all that a gateway passes.

A mark is `name=value` anywhere in a text, so that it fits into a URL's query, a path and a question:
`https://example.org/?stream=test:4f2a&outcome=failed`.

Of jobs:   stream=NAME (where its events go)   outcome=complete|failed|cancelled|silent|stuck|vanished
           speed=N (so many times as fast as Shield)   owner=UUID   answers=NNN (the orchestrator's status)
Of tools:  fault=slow | error | crash | die (the whole server) | strange, each after N seconds with -N
Of the model: fault=slow-N | drip-N | hold (until `POST /release?contains=TEXT` with a text of the prompt) | cut | stall
           | NNN (a status) | overflow (of its context), and times=N: only the first N
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
    """The marks in a text, or in all the texts of a JSON value."""
    return {match[1]: match[2] for text in _texts(value) for match in _MARK.finditer(text)}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to go wrong: `slow-3` is the kind `slow` with 3 seconds."""

    kind: str
    seconds: float

    @classmethod
    def of(cls, marks: Mapping[str, Any]) -> Fault:
        """The fault that the marks ask for; its kind is empty where they ask for none."""
        kind, _, seconds = str(marks.get("fault", "")).partition("-")
        return cls(kind, float(seconds or 0))
