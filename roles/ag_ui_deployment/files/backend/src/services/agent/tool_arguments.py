"""Joins the streamed fragments of the arguments of one tool call, a JSON object. No I/O."""

import re

_TOKENS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_NONE = "{}"


class ToolArguments:
    """Joins fragments, and ignores further ones once the object is complete.

    Some gateways repeat the whole object in a last fragment. Others send an empty object before the
    fragments of the real one. `{}` alone is therefore held back; finish() returns it if nothing
    followed.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._depth = 0
        self._in_string = False
        # The last fragment ended between a backslash and the character that it escapes.
        self._escaped = False
        self._has_ended = False
        self._is_empty_object = False

    def __str__(self) -> str:
        return "".join(self._pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the object is complete, according to the fragments so far."""
        return self._has_ended or self._is_empty_object

    @property
    def is_cut(self) -> bool:
        """Whether the object has started and is incomplete."""
        return bool(self._pieces) and not self.is_whole

    def is_repeated_by(self, piece: str) -> bool:
        """Whether a fragment repeats the whole object."""
        return self.is_whole and piece == (str(self) or _NONE)

    def add(self, piece: str) -> str:
        """Returns the new part of a fragment; empty if there is none."""
        if self._has_ended or not piece:
            return ""
        if not self._pieces and piece.strip() == _NONE:
            self._is_empty_object = True
            return ""
        self._is_empty_object = False
        new = piece[: self._end_in(piece)]
        self._pieces.append(new)
        return new

    def finish(self) -> str:
        """Returns the rest to send at the end of the answer."""
        if self._pieces:
            return ""
        self._pieces.append(_NONE)
        return _NONE

    def _end_in(self, piece: str) -> int:
        """Returns the index at which the object or the fragment ends."""
        start = int(self._escaped)
        self._escaped = False
        for token in _TOKENS.finditer(piece, start):
            mark = token[0]
            if self._in_string:
                if mark == '"':
                    self._in_string = False
                elif mark == "\\":
                    self._escaped = True
            elif mark == '"':
                self._in_string = True
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._has_ended = True
                    return token.end()
        return len(piece)
