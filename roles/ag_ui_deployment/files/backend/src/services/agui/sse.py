r"""Encodes AG-UI events as Server-Sent Events.

The separator is `\n`: the official client splits on `\n\n` only. Line splitters of common libraries
(httpx, Python's splitlines) also split at U+2028, U+2029 and U+0085, so these are escaped in the
JSON.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from src.models.event import StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui.events import Event
from src.services.agui.protocol_versions import VERSIONED_TYPES, rendered

_FRAME_END = b"\n\n"
_DATA = b"\ndata: "
_VERSIONED_LINES = tuple(b"event: %b\n" % kind.encode() for kind in sorted(VERSIONED_TYPES))

_SEPARATORS = tuple((chr(code).encode(), b"\\u%04x" % code) for code in (0x0085, 0x2028, 0x2029))


def encode(events: Iterable[Event], stream_id: StreamId | None = None) -> bytes:
    """Encodes events as frames; only the last frame has the id of the record.

    A connection that breaks between two frames of a record therefore replays the whole record.
    Frames without a record have no id; position() follows them.
    """
    return _encoded(events, b"" if stream_id is None else b"id: %d-%d\n" % stream_id)


def _encoded(events: Iterable[Event], id_line: bytes) -> bytes:
    frames = [frame(event["type"], dump_line(event)) for event in events]
    if frames:
        frames[-1] = id_line + frames[-1]
    return b"".join(frames)


def translated(frames: bytes, version: ProtocolVersion) -> bytes:
    """Translates frames of encode() to another version of the protocol. Ids stay the same.

    Line breaks inside an event are escaped, so a byte search finds the name of a type at the start
    of a line.
    """
    if version is CURRENT or not any(line in frames for line in _VERSIONED_LINES):
        return frames
    return b"".join(
        _translated(event_frame, version) for event_frame in frames.split(_FRAME_END) if event_frame
    )


def _translated(event_frame: bytes, version: ProtocolVersion) -> bytes:
    if not event_frame.startswith(_VERSIONED_LINES) and not any(
        b"\n" + line in event_frame for line in _VERSIONED_LINES
    ):
        return event_frame + _FRAME_END
    head, _, data = event_frame.partition(_DATA)
    return _encoded(rendered(orjson.loads(data), version), head[: head.rfind(b"\n") + 1])


def frame(kind: str, data: bytes) -> bytes:
    """Builds a frame without an id; `data` is JSON in one line."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def dump_line(value: Any) -> bytes:
    """Serializes a value as JSON without any character that a line splitter splits at."""
    return escape_separators(orjson.dumps(value))


def escape_separators(data: bytes) -> bytes:
    """Escapes the line separators outside ASCII in JSON."""
    if data.isascii():
        return data
    for separator, escaped in _SEPARATORS:
        data = data.replace(separator, escaped)
    return data


def marker(stream_id: StreamId) -> bytes:
    """Builds a comment with the id of a record that has no frames."""
    return comment("nothing", stream_id)


def position(stream_id: StreamId) -> bytes:
    """Builds a frame that has only an id: the client has everything up to this position.

    EventSource stores the id and dispatches no event.
    """
    return b"id: %d-%d\n\n" % stream_id


def retry(milliseconds: int) -> bytes:
    """Builds the frame that sets the reconnection time of the client."""
    return b"retry: %d\n\n" % milliseconds


def comment(text: str, stream_id: StreamId | None = None) -> bytes:
    """Builds a comment, followed by a position if an id is given."""
    return f": {text}\n".encode() + (position(stream_id) if stream_id else b"\n")
