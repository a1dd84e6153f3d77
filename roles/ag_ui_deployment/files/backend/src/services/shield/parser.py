"""Parses entries of the Redis stream to ShieldEvent, or to Poison if they are invalid.

Producers are programs of other teams. Missing values are derived (event id, time, empty data),
harmless defects repaired (NaN, lone surrogates). An entry that would need guessing is rejected,
unless it ends a job.
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

_NAME_MAX = 200
_STORED_MAX_BYTES = 64 * 1024
# Maximum of a datetime in milliseconds: the year 9999.
_MAX_TIMESTAMP = 253_402_300_799_999

# orjson serializes up to 254 levels. The frames of an event nest it a few levels deeper.
_MAX_DEPTH = 238
_ENVELOPE_DEPTH = 254 - _MAX_DEPTH

# Digits of 2**64 - 1, the greatest integer that orjson reads as an integer.
_INTEGER_DIGITS = 20

Fields = Mapping[bytes, bytes]
Result = TypeVar("Result")


class MalformedEventError(ValueError):
    """The entry is no event; the message says which field and why."""


def read_id(row_id: bytes) -> StreamId:
    """Parses the id of an entry; each part is at most 2**64 - 1."""
    ms, seq = row_id.split(b"-")
    return StreamId(int(ms), int(seq))


def parse_entry(stream_id: StreamId, fields: Fields, max_bytes: int) -> ShieldEvent | Poison:
    """Parses an entry.

    Args:
        stream_id: The id of the entry.
        fields: The fields of the entry.
        max_bytes: The limit of the sum of all values, in bytes.

    Returns:
        The event; for an invalid entry, what rejected_entry() returns.
    """
    try:
        return _parse(stream_id, fields, max_bytes)
    except MalformedEventError as error:
        reason = str(error)
    except Exception as error:
        # A defect of this code must cost one entry and not stop the stream.
        logger.exception("event_not_parsed", stream_id=str(stream_id))
        reason = f"cannot be read: {type(error).__name__}"
    return rejected_entry(stream_id, fields, reason)


def rejected_entry(stream_id: StreamId, fields: Fields, reason: str) -> ShieldEvent | Poison:
    """Returns the replacement for an entry that cannot be stored as it is.

    An entry that ends a job still ends it, or the job would run forever. Its event has the readable
    fields and, as data, the reason and the original text of the data.

    Args:
        stream_id: The id of the entry.
        fields: The fields of the entry.
        reason: Why the entry is rejected.

    Returns:
        An event if the entry ends a job that it names, else Poison.
    """
    kind, job_id = _read_or_none(_name, fields, b"type"), _read_or_none(_name, fields, b"job_id")
    if kind not in END_STATUS or job_id is None:
        return Poison(stream_id, reason, dump_fields(fields))
    metadata = (
        _read_or_none(_metadata, fields)
        if len(fields.get(b"metadata", b"")) <= _STORED_MAX_BYTES
        else None
    )
    data = {"unreadable": reason}
    # Without the metadata it is unknown who may see the text.
    if metadata is not None:
        data["text"] = fields.get(b"data", b"")[:_STORED_MAX_BYTES].decode("utf-8", "replace")
    return ShieldEvent(
        id=stream_id,
        event_id=_read_or_none(_name, fields, b"event_id") or str(stream_id),
        type=kind,
        timestamp=_read_or_none(_timestamp, fields, stream_id) or _timestamp_of_id(stream_id),
        job_id=job_id,
        data=data,
        metadata=metadata or {},
    )


def _read_or_none(read: Callable[..., Result | None], *arguments: Any) -> Result | None:
    try:
        return read(*arguments)
    except MalformedEventError:
        return None


def dump_fields(fields: Fields) -> bytes:
    """Serializes the fields of an entry as JSON, truncated to 64 KiB.

    Values are strings. A name or value that is not UTF-8 becomes an object with its bytes in
    base64. load_fields() reads what was not truncated.
    """
    readable: dict[str, Any] = {}
    for name, value in fields.items():
        text = name.decode("utf-8", "backslashreplace")
        readable[text] = _dump_value(value[:_STORED_MAX_BYTES])
        if text.encode() != name:
            content = b64encode(value[:_STORED_MAX_BYTES]).decode()
            readable[text] = {"name": b64encode(name).decode(), "base64": content}
    return orjson.dumps(readable)[:_STORED_MAX_BYTES]


def load_fields(dumped: bytes) -> dict[bytes, bytes] | None:
    """Restores the fields from dump_fields(); None if they were truncated."""
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
    if len(text) > _NAME_MAX or not text.isprintable():
        raise MalformedEventError(
            f"{field.decode()}: is longer than {_NAME_MAX} characters or has control characters"
        )
    return text


def _metadata(fields: Fields) -> dict[str, Any]:
    metadata = _json_object(fields, b"metadata")
    workspace = metadata.get("workspace")
    # Treated as missing, it would show the job to all users of the default workspace.
    if isinstance(workspace, str) and len(workspace) > _NAME_MAX:
        raise MalformedEventError(f"metadata.workspace: is longer than {_NAME_MAX} characters")
    return metadata


def _required_name(fields: Fields, field: bytes) -> str:
    text = _name(fields, field)
    if text is None:
        raise MalformedEventError(f"{field.decode()}: is missing")
    return text


def _timestamp(fields: Fields, stream_id: StreamId) -> int:
    """Returns milliseconds; without a timestamp, the time when Redis added the entry."""
    text = _name(fields, b"timestamp")
    if text is None:
        return _timestamp_of_id(stream_id)
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


def _timestamp_of_id(stream_id: StreamId) -> int:
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
    """Parses JSON, after a repair if necessary.

    Raises:
        orjson.JSONDecodeError: The text is not JSON and cannot be repaired.
        RecursionError: The text is nested too deeply.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        repaired = _repaired(raw)
        if repaired is None:
            raise
        return orjson.loads(repaired)


def _repaired(raw: bytes) -> bytes | None:
    """Converts the JSON dialects of other libraries to valid JSON; None if that fails.

    NaN, infinities and numbers beyond a double become null, lone surrogates U+FFFD.
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
    # int() rejects thousands of digits. orjson reads integers beyond 64 bits as a double anyway.
    return int(digits) if len(digits) <= _INTEGER_DIGITS else _finite(digits)


def _is_too_deep(value: Any) -> bool:
    """Whether a value is nested too deeply to be serialized, and thus to be sent or stored."""
    for _ in range(_ENVELOPE_DEPTH):
        value = [value]
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False
