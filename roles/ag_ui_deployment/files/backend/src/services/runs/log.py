"""Holds the events of one agent run, shared by all its readers in this process.

A log only grows. Its records are numbered from 1, and record n has the id `n-0` on every instance.
The process that runs the agent assigns the ids, not Redis, so that a run can continue while Redis
is unavailable.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson

from src.models.event import StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui.events import Event
from src.services.agui.protocol_versions import VERSIONED_TYPES, rendered
from src.services.agui.sse import dump_line, encode, escape_separators, frame

# Events that must be sent again, if not closed, before a client can continue a run.
_OPENS = {
    "REASONING_MESSAGE_START": "messageId",
    "REASONING_START": "messageId",
    "STEP_STARTED": "stepName",
    "TEXT_MESSAGE_START": "messageId",
    "TOOL_CALL_START": "toolCallId",
}
_CLOSES = {
    "REASONING_END": "REASONING_START",
    "REASONING_MESSAGE_END": "REASONING_MESSAGE_START",
    "STEP_FINISHED": "STEP_STARTED",
    "TEXT_MESSAGE_END": "TEXT_MESSAGE_START",
    "TOOL_CALL_END": "TOOL_CALL_START",
}
_RESULTS = {"TOOL_CALL_RESULT": "toolCallId"}
_SUBJECT_FIELDS = _OPENS | _RESULTS | {end: _OPENS[start] for end, start in _CLOSES.items()}
_TERMINAL = frozenset({"RUN_FINISHED", "RUN_ERROR"})


class LogRecord(NamedTuple):
    """One event: its type, the id or name that it opens, closes or answers, and its JSON."""

    type: str
    subject: str | None
    data: bytes

    @classmethod
    def of(cls, event: Event) -> "LogRecord":
        """Serializes an event."""
        return cls._from_event(event, dump_line(event))

    @classmethod
    def read(cls, data: bytes) -> "LogRecord":
        """Parses the JSON of a stored record."""
        return cls._from_event(orjson.loads(data), escape_separators(data))

    @classmethod
    def _from_event(cls, event: Event, data: bytes) -> "LogRecord":
        kind = event["type"]
        name = _SUBJECT_FIELDS.get(kind)
        return cls(kind, event[name] if name else None, data)

    @property
    def is_terminal(self) -> bool:
        return self.type in _TERMINAL

    def frame(self, number: int | None = None) -> bytes:
        """Encodes the record as a frame; records that are sent again have no id."""
        encoded = frame(self.type, self.data)
        return encoded if number is None else b"id: %d-0\n%b" % (number, encoded)


class RunLog:
    """The records of one run, and an event that is set when the log grows.

    Attributes:
        records: All records, in order.
        size: The size of their JSON in bytes.
        changed: Set and replaced by a new event whenever the log grows or wake() is called.
    """

    def __init__(self, records: Iterable[LogRecord] = ()) -> None:
        self.records: list[LogRecord] = []
        self.size = 0
        # Frames that differ in another protocol version, by index and version.
        self._rendered: dict[tuple[int, ProtocolVersion], bytes] = {}
        self.changed = asyncio.Event()
        self.append(records)

    @property
    def ended(self) -> bool:
        return bool(self.records) and self.records[-1].is_terminal

    def append(self, records: Iterable[LogRecord]) -> None:
        for record in records:
            self.records.append(record)
            self.size += len(record.data)
        self.wake()

    def wake(self) -> None:
        """Wakes the readers, whether or not there are new records."""
        self.changed.set()
        self.changed = asyncio.Event()

    def has(self, cursor: StreamId) -> bool:
        """Whether the log contains the record with this id."""
        return cursor.seq == 0 and cursor.ms <= len(self.records)

    def is_behind(self, cursor: StreamId) -> bool:
        """Whether the cursor is ahead of the log, so that the log may still reach it."""
        return cursor.seq == 0 and cursor.ms > len(self.records)

    def frames(self, start: int, end: int, version: ProtocolVersion = CURRENT) -> bytes:
        """Returns the frames of the records with start <= index < end."""
        return b"".join(self._frame(index, version) for index in range(start, end))

    def resume_frames(self, count: int, version: ProtocolVersion = CURRENT) -> bytes:
        """Returns what a client that has the first `count` records gets first, without ids."""
        if not count:
            return b""
        started = encode(rendered(orjson.loads(self.records[0].data), version))
        return started + b"".join(record.frame() for record in self._open_records(count))

    def _open_records(self, count: int) -> Iterable[LogRecord]:
        """Returns the start records that have no end among the first `count` records."""
        opened: dict[tuple[str, str | None], LogRecord] = {}
        for record in self.records[:count]:
            if record.type in _OPENS:
                opened[record.type, record.subject] = record
            elif start := _CLOSES.get(record.type):
                opened.pop((start, record.subject), None)
        return opened.values()

    def _frame(self, index: int, version: ProtocolVersion) -> bytes:
        record = self.records[index]
        if version is CURRENT or record.type not in VERSIONED_TYPES:
            return record.frame(index + 1)
        if (index, version) not in self._rendered:
            events = rendered(orjson.loads(record.data), version, self._unanswered(index))
            self._rendered[index, version] = encode(events, StreamId(index + 1, 0))
        return self._rendered[index, version]

    def _unanswered(self, index: int) -> Sequence[str]:
        """Returns the tool calls before an index that have no result there."""
        calls: dict[str | None, None] = {}
        for record in self.records[:index]:
            if record.type == "TOOL_CALL_START":
                calls[record.subject] = None
            elif record.type in _RESULTS:
                calls.pop(record.subject, None)
        return [call for call in calls if call is not None]
