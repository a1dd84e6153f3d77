"""The events of one run of the agent, as every reader of this process shares them.

A log only grows. Its records are numbered from 1, and record n has the id `n-0` on every instance:
whoever runs the agent decides the ids, not Redis, so that a run can go on while Redis is away.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson

from src.models.event import StreamId
from src.services.agui_events import Event

# What has to be open again before a client can take the rest of a run.
_OPENS = {"TEXT_MESSAGE_START": "messageId", "TOOL_CALL_START": "toolCallId"}
_CLOSES = {"TEXT_MESSAGE_END": "messageId", "TOOL_CALL_END": "toolCallId"}
_TERMINAL = frozenset({"RUN_FINISHED", "RUN_ERROR"})


class Record(NamedTuple):
    """One event: its type, what it opens or closes, and its JSON."""

    type: str
    subject: str | None
    data: bytes

    @classmethod
    def of(cls, event: Event) -> "Record":
        return cls._made(event, orjson.dumps(event))

    @classmethod
    def read(cls, data: bytes) -> "Record":
        return cls._made(orjson.loads(data), data)

    @classmethod
    def _made(cls, event: Event, data: bytes) -> "Record":
        kind = event["type"]
        name = _OPENS.get(kind) or _CLOSES.get(kind)
        return cls(kind, event[name] if name else None, data)

    @property
    def is_terminal(self) -> bool:
        return self.type in _TERMINAL

    def frame(self, number: int | None = None) -> bytes:
        """As bytes of a stream; without an id for what is only said again."""
        frame = b"event: %b\ndata: %b\n\n" % (self.type.encode(), self.data)
        return frame if number is None else b"id: %d-0\n%b" % (number, frame)


class RunLog:
    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records: list[Record] = []
        self.size = 0
        # Set, and replaced by a new one, whenever the log has grown.
        self.changed = asyncio.Event()
        self.append(records)

    @property
    def ended(self) -> bool:
        return bool(self.records) and self.records[-1].is_terminal

    def append(self, records: Iterable[Record]) -> None:
        for record in records:
            self.records.append(record)
            self.size += len(record.data)
        self.wake()

    def wake(self) -> None:
        """Let the readers look again, whether or not there is more."""
        self.changed.set()
        self.changed = asyncio.Event()

    def has(self, cursor: StreamId) -> bool:
        return cursor.seq == 0 and cursor.ms <= len(self.records)

    def is_behind(self, cursor: StreamId) -> bool:
        """Whether a client's cursor is one that the log may come to."""
        return cursor.seq == 0 and cursor.ms > len(self.records)

    def frames(self, start: int, end: int) -> bytes:
        """The records from one place to another."""
        return b"".join(
            record.frame(number)
            for number, record in enumerate(self.records[start:end], start=start + 1)
        )

    def prelude(self, place: int) -> bytes:
        """What a client that has the records before a place is told first, without ids."""
        if not place:
            return b""
        return b"".join(record.frame() for record in self._standing(place))

    def _standing(self, place: int) -> Sequence[Record]:
        opened: dict[tuple[str, str | None], Record] = {}
        for record in self.records[:place]:
            if name := _OPENS.get(record.type):
                opened[name, record.subject] = record
            elif name := _CLOSES.get(record.type):
                opened.pop((name, record.subject), None)
        return [self.records[0], *opened.values()]
