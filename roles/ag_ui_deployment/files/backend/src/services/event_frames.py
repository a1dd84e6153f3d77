r"""AG-UI events as bytes of a Server-Sent Events stream.

The separator is `\n`: the official client splits on `\n\n` only.
"""

from collections.abc import Iterable

from ag_ui.core import BaseEvent

from src.models.event import StreamId


def encode(events: Iterable[BaseEvent], stream_id: StreamId | None = None) -> bytes:
    """Frames of the events. Only the last carries the id of the record they come from.

    A cut between them then replays the whole record. Frames that stem from no record have no
    id, since an invented one would skip real events at the next reconnect.
    """
    frames = [
        f"event: {event.type.value}\ndata: "
        f"{event.model_dump_json(by_alias=True, exclude_none=True)}\n\n"
        for event in events
    ]
    if frames and stream_id is not None:
        frames[-1] = f"id: {stream_id}\n{frames[-1]}"
    return "".join(frames).encode()


def retry(milliseconds: int) -> bytes:
    """How long a client should wait before it reconnects."""
    return f"retry: {milliseconds}\n\n".encode()


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()
