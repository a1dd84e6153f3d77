"""Sanitises the details of audit events: no secrets, no control characters, bounded size."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import orjson

from src.utils.json_types import Json
from src.utils.logger import redact

_MAX_TEXT = 512
_MAX_NAME = 64
_MAX_ITEMS = 50
_MAX_DEPTH = 4
_MAX_BYTES = 4096
# Greater integers are not exact in all JSON parsers.
_MAX_INTEGER = 2**53


def bounded_text(text: str) -> str:
    """Escape unprintable characters and truncate the text to 512 characters."""
    truncated = text[: _MAX_TEXT + 1]
    if not truncated.isprintable():
        # Truncated again below: escapes are longer, and PostgreSQL indexes at most 2704 bytes.
        truncated = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in truncated
        )
    return truncated[: _MAX_TEXT - 1] + "…" if len(truncated) > _MAX_TEXT else truncated


def canonical_details(details: Mapping[str, Json]) -> str:
    """Encode details as JSON with sorted keys. Secrets are redacted, and large values truncated.

    Details above 4096 bytes are replaced by a note of their size.
    """
    sanitised = _sanitised(redact(None, "", dict(details)), _MAX_DEPTH)
    encoded = orjson.dumps(sanitised, option=orjson.OPT_SORT_KEYS)
    if len(encoded) > _MAX_BYTES:
        encoded = orjson.dumps({"omitted": f"{len(encoded)} bytes of details"})
    return encoded.decode()


def _sanitised(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) <= _MAX_INTEGER:
        return int(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset) and not depth:
        return "…"
    if isinstance(value, Mapping):
        items = islice(value.items(), _MAX_ITEMS)
        return {
            bounded_text(str(key))[:_MAX_NAME]: _sanitised(item, depth - 1) for key, item in items
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_sanitised(item, depth - 1) for item in islice(value, _MAX_ITEMS)]
    return bounded_text(str(value))
