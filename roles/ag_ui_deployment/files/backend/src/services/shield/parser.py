"""Entries of the Redis stream to ShieldEvents, or to Poison where they cannot be read.

Producers are other teams' programs. What can be derived is derived (event id, time, empty data),
what is harmless is repaired (NaN, half a surrogate pair); what would have to be guessed is refused,
but for the end of a job.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, TypeVar

import orjson
import structlog

from src.models.event import Poison, ShieldEvent, StreamId
from src.services.shield.event_types import END_STATUS

logger = structlog.get_logger(__name__)

_MAX_NAME = 200
_KEPT = 64 * 1024
# The last millisecond that a datetime can hold: year 9999.
_MAX_TIMESTAMP = 253_402_300_799_999

# orjson writes 254 levels. The frames that are made of an event put it some levels deeper.
_MAX_DEPTH = 238
_AROUND_IT = 254 - _MAX_DEPTH

# Those of the greatest integer that orjson reads as one, 2**64 - 1.
_INTEGER_DIGITS = 20

Fields = Mapping[bytes, bytes]
Result = TypeVar("Result")


class MalformedEventError(ValueError):
    """The entry is no event; the message says which field and why."""


def read_id(row_id: bytes) -> StreamId:
    """The id of an entry as Redis writes it; its parts go up to 2**64 - 1."""
    ms, seq = row_id.split(b"-")
    return StreamId(int(ms), int(seq))


def parse_entry(stream_id: StreamId, fields: Fields, max_bytes: int) -> ShieldEvent | Poison:
    try:
        return _parse(stream_id, fields, max_bytes)
    except MalformedEventError as error:
        reason = str(error)
    except Exception as error:
        # A defect of ours, which must cost this one entry and not the stream.
        logger.exception("event_not_parsed", stream_id=str(stream_id))
        reason = f"cannot be read: {type(error).__name__}"
    return refused(stream_id, fields, reason)


def refused(stream_id: StreamId, fields: Fields, reason: str) -> ShieldEvent | Poison:
    """What becomes of an entry that cannot be kept as it is.

    One that ends a job ends it all the same, or the job would run for ever: the event has what can
    be read of the rest, and as its data the reason and the text in place of the data.
    """
    kind, job_id = _readable(_name, fields, b"type"), _readable(_name, fields, b"job_id")
    if kind not in END_STATUS or job_id is None:
        return Poison(stream_id, reason, dump_fields(fields))
    metadata = _readable(_metadata, fields) if len(fields.get(b"metadata", b"")) <= _KEPT else None
    data = {"unreadable": reason}
    # Without its metadata nobody knows who may see it.
    if metadata is not None:
        data["text"] = fields.get(b"data", b"")[:_KEPT].decode("utf-8", "replace")
    return ShieldEvent(
        id=stream_id,
        event_id=_readable(_name, fields, b"event_id") or str(stream_id),
        type=kind,
        timestamp=_readable(_timestamp, fields, stream_id) or _moment_of(stream_id),
        job_id=job_id,
        data=data,
        metadata=metadata or {},
    )


def _readable(read: Callable[..., Result | None], *arguments: Any) -> Result | None:
    try:
        return read(*arguments)
    except MalformedEventError:
        return None


def dump_fields(fields: Fields) -> bytes:
    """What stood in an entry, as JSON cut to 64 KiB; load_fields() reads what is whole.

    Values are texts; what is no UTF-8 is an object with its bytes in base64.
    """
    readable: dict[str, Any] = {}
    for name, value in fields.items():
        text = name.decode("utf-8", "backslashreplace")
        readable[text] = _dump_value(value[:_KEPT])
        if text.encode() != name:
            content = b64encode(value[:_KEPT]).decode()
            readable[text] = {"name": b64encode(name).decode(), "base64": content}
    return orjson.dumps(readable)[:_KEPT]


def load_fields(dumped: bytes) -> dict[bytes, bytes] | None:
    """The fields of an entry as they were; None where not all of it was kept."""
    try:
        readable = orjson.loads(dumped)
        return dict(_load_value(name, value) for name, value in readable.items()) or None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def _dump_value(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _load_value(name: str, value: str | dict[str, str]) -> tuple[bytes, bytes]:
    if isinstance(value, str):
        return name.encode(), value.encode()
    raw_name = b64decode(value["name"]) if "name" in value else name.encode()
    return raw_name, b64decode(value["base64"])


def _parse(stream_id: StreamId, fields: Fields, max_bytes: int) -> ShieldEvent:
    size = sum(map(len, fields.values()))
    if size > max_bytes:
        raise MalformedEventError(f"entry: {size} bytes are more than the {max_bytes} allowed")
    metadata = _metadata(fields)
    return ShieldEvent(
        id=stream_id,
        event_id=_name(fields, b"event_id") or str(stream_id),
        type=_required_name(fields, b"type"),
        timestamp=_timestamp(fields, stream_id),
        job_id=_name(fields, b"job_id"),
        data=_json_object(fields, b"data"),
        metadata=metadata,
    )


def _name(fields: Fields, field: bytes) -> str | None:
    raw = fields.get(field, b"").strip()
    if not raw:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise MalformedEventError(f"{field.decode()}: is not UTF-8") from None
    if len(text) > _MAX_NAME or not text.isprintable():
        raise MalformedEventError(
            f"{field.decode()}: is longer than {_MAX_NAME} characters or has control characters"
        )
    return text


def _metadata(fields: Fields) -> dict[str, Any]:
    metadata = _json_object(fields, b"metadata")
    workspace = metadata.get("workspace")
    # Taken for none, it would show the job to all of the default workspace.
    if isinstance(workspace, str) and len(workspace) > _MAX_NAME:
        raise MalformedEventError(f"metadata.workspace: is longer than {_MAX_NAME} characters")
    return metadata


def _required_name(fields: Fields, field: bytes) -> str:
    text = _name(fields, field)
    if text is None:
        raise MalformedEventError(f"{field.decode()}: is missing")
    return text


def _timestamp(fields: Fields, stream_id: StreamId) -> int:
    """Milliseconds; the time at which Redis took the entry where the producer gives none."""
    text = _name(fields, b"timestamp")
    if text is None:
        return _moment_of(stream_id)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        milliseconds = round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise MalformedEventError("timestamp: is no ISO 8601 time") from None
    if not 0 <= milliseconds <= _MAX_TIMESTAMP:
        raise MalformedEventError("timestamp: lies before 1970 or after 9999")
    return milliseconds


def _moment_of(stream_id: StreamId) -> int:
    return min(stream_id.ms, _MAX_TIMESTAMP)


def _json_object(fields: Fields, field: bytes) -> dict[str, Any]:
    raw = fields.get(field, b"").strip()
    if not raw or raw == b"{}":
        return {}
    try:
        value = _loads(raw)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise MalformedEventError(
            f"{field.decode()}: is no JSON that can be kept ({error})"
        ) from None
    if not isinstance(value, dict):
        raise MalformedEventError(f"{field.decode()}: is no JSON object")
    if raw.count(b"[") + raw.count(b"{") > _MAX_DEPTH and _is_too_deep(value):
        raise MalformedEventError(f"{field.decode()}: is nested deeper than {_MAX_DEPTH} levels")
    return value


def _loads(raw: bytes) -> Any:
    """Raises orjson.JSONDecodeError or RecursionError."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        repaired = _repaired(raw)
        if repaired is None:
            raise
        return orjson.loads(repaired)


def _repaired(raw: bytes) -> bytes | None:
    """JSON in place of what other libraries write for it; None for what is not even that.

    NaN, infinities and numbers beyond a double become null, and halves of surrogate pairs U+FFFD.
    """
    try:
        value = json.loads(
            raw.decode("utf-8", "surrogatepass"),
            parse_constant=_null,
            parse_float=_finite,
            parse_int=_finite_integer,
        )
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _null(_constant: str) -> None:
    return None


def _finite(number: str) -> float | None:
    value = float(number)
    return value if isfinite(value) else None


def _finite_integer(digits: str) -> float | None:
    # int() refuses thousands of digits. What does not fit into 64 bits is read as a double anyway.
    return int(digits) if len(digits) <= _INTEGER_DIGITS else _finite(digits)


def _is_too_deep(value: Any) -> bool:
    """What is nested too deep to be written again could never be sent or stored."""
    for _ in range(_AROUND_IT):
        value = [value]
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False
