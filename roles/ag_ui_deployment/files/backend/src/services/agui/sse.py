r"""AG-UI events as bytes of a Server-Sent Events stream.

The separator is `\n`: the official client splits on `\n\n` only. Line splitters of common libraries
(httpx, Python's splitlines) also split at U+2028, U+2029 and U+0085, so JSON escapes these.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from src.models.event import StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui.events import Event
from src.services.agui.protocol_versions import DIFFERING, rendered

_FRAME_END = b"\n\n"
_DATA = b"\ndata: "
_DIFFERING = tuple(b"event: %b\n" % kind.encode() for kind in sorted(DIFFERING))

_SEPARATORS = tuple((chr(code).encode(), b"\\u%04x" % code) for code in (0x0085, 0x2028, 0x2029))


def encode(events: Iterable[Event], stream_id: StreamId | None = None) -> bytes:
    """Frames of the events. Only the last carries the id of the record they come from.

    A cut between them then replays the whole record. Frames that stem from no record have no
    id; position() follows them.
    """
    return _encoded(events, b"" if stream_id is None else b"id: %d-%d\n" % stream_id)


def _encoded(events: Iterable[Event], id_line: bytes) -> bytes:
    frames = [frame(event["type"], one_line(event)) for event in events]
    if frames:
        frames[-1] = id_line + frames[-1]
    return b"".join(frames)


def translated(frames: bytes, version: ProtocolVersion) -> bytes:
    """Frames of encode() as another version of the protocol has them, with the same ids.

    A line break within an event is escaped, so the name of a type at the beginning of a line is
    found by a search for bytes.
    """
    if version is CURRENT or not any(line in frames for line in _DIFFERING):
        return frames
    return b"".join(_translated(one, version) for one in frames.split(_FRAME_END) if one)


def _translated(one: bytes, version: ProtocolVersion) -> bytes:
    if not one.startswith(_DIFFERING) and not any(b"\n" + line in one for line in _DIFFERING):
        return one + _FRAME_END
    head, _, data = one.partition(_DATA)
    return _encoded(rendered(orjson.loads(data), version), head[: head.rfind(b"\n") + 1])


def frame(kind: str, data: bytes) -> bytes:
    """A frame without an id; `data` is JSON in one line."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def one_line(value: Any) -> bytes:
    """A value as JSON that every line splitter takes for one line."""
    return escape_separators(orjson.dumps(value))


def escape_separators(data: bytes) -> bytes:
    """JSON with its line separators beyond ASCII escaped."""
    if data.isascii():
        return data
    for separator, escaped in _SEPARATORS:
        data = data.replace(separator, escaped)
    return data


def marker(stream_id: StreamId) -> bytes:
    """The id of a record of which there is nothing to show."""
    return comment("nothing", stream_id)


def position(stream_id: StreamId) -> bytes:
    """The id up to which a client holds everything that it may see.

    EventSource takes it as the last id and dispatches no event.
    """
    return b"id: %d-%d\n\n" % stream_id


def retry(milliseconds: int) -> bytes:
    """How long a client should wait before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def comment(text: str, stream_id: StreamId | None = None) -> bytes:
    """A comment, with the position where the client has not been told of it."""
    return f": {text}\n".encode() + (position(stream_id) if stream_id else b"\n")
