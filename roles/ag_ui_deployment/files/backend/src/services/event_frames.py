r"""AG-UI events as bytes of a Server-Sent Events stream.

The separator is `\n`: the official client splits on `\n\n` only.
"""

from collections.abc import Iterable

import orjson

from src.models.event import StreamId
from src.services.agui_events import Event


def encode(events: Iterable[Event], stream_id: StreamId | None = None) -> bytes:
    """Frames of the events. Only the last carries the id of the record they come from.

    A cut between them then replays the whole record. Frames that stem from no record have no
    id, since an invented one would skip real events at the next reconnect.
    """
    frames = [
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
        for event in events
    ]
    if frames and stream_id is not None:
        frames[-1] = b"id: %d-%d\n%b" % (*stream_id, frames[-1])
    return b"".join(frames)


def marker(stream_id: StreamId) -> bytes:
    """The id of a record of which there is nothing to show."""
    return b": nothing\nid: %d-%d\n\n" % stream_id


def retry(milliseconds: int) -> bytes:
    """How long a client should wait before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()
