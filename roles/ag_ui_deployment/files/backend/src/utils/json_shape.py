"""Limits the number of values and the nesting depth of a JSON text without parsing it."""

import re

# A text within these limits is parsed and validated within a few dozen milliseconds.
MAX_VALUES = 20_000
MAX_DEPTH = 64

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = b"[{"


class JsonTooComplexError(ValueError):
    """The text holds too many values, or nests them too deep."""


class JsonShape:
    """Scans a JSON text in chunks and stops at the first one that exceeds a limit.

    The time is linear in the length of the text. Invalid JSON may pass, since the parser rejects it.
    """

    def __init__(self, max_values: int = MAX_VALUES, max_depth: int = MAX_DEPTH) -> None:
        self._max_values = max_values
        self._max_depth = max_depth
        # Each value but the first follows a comma or an opening bracket.
        self._values = 1
        self._depth = 0
        self._in_string = False
        # A backslash at the end of the last chunk, which escapes the first byte of the next one.
        self._backslash = b""

    def feed(self, piece: bytes) -> None:
        """Scan the next chunk.

        Raises:
            JsonTooComplexError: A limit is exceeded, or brackets are closed that were not opened.
        """
        text = self._backslash + piece
        backslashes = len(text) - len(text.rstrip(b"\\"))
        whole = len(text) - backslashes % 2
        piece, self._backslash = text[:whole], text[whole:]
        # The final quote closes a string that is still open. Otherwise it remains in `outside`.
        opening = b'"' if self._in_string else b""
        outside = _STRING.sub(b"", opening + piece + b'"')
        self._in_string = not outside.endswith(b'"')
        self._count(outside)

    def _count(self, outside: bytes) -> None:
        brackets = outside.translate(None, _NO_BRACKETS)
        self._values += outside.count(b",") + brackets.count(b"[") + brackets.count(b"{")
        if self._values > self._max_values:
            raise JsonTooComplexError(f"has more than {self._max_values} values")
        for bracket in brackets:
            self._depth += 1 if bracket in _OPENING else -1
            if self._depth > self._max_depth:
                raise JsonTooComplexError(f"nests deeper than {self._max_depth} levels")
            if self._depth < 0:
                # Not JSON.
                raise JsonTooComplexError("closes more brackets than it opens")
