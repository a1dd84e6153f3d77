"""The arguments of one tool call, a JSON object that a model streams in pieces. No I/O."""

import re

_TOKENS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_NONE = "{}"


class ToolArguments:
    """Joins the pieces, and takes nothing more once the object is whole.

    Some gateways repeat the whole object in a last piece. Others send an empty object before the
    pieces of the real one, so that `{}` alone is held back: finish() gives it if nothing followed.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._depth = 0
        self._in_string = False
        # The last piece ended between a backslash and the character that it escapes.
        self._escaped = False
        self._has_ended = False
        self._is_empty_object = False

    def __str__(self) -> str:
        return "".join(self._pieces)

    @property
    def is_whole(self) -> bool:
        return self._has_ended or self._is_empty_object

    @property
    def is_cut(self) -> bool:
        """Whether they have begun and are not whole yet."""
        return bool(self._pieces) and not self.is_whole

    def is_repeated_by(self, piece: str) -> bool:
        """Whether a piece holds the whole object once more."""
        return self.is_whole and piece == (str(self) or _NONE)

    def add(self, piece: str) -> str:
        """Gives what is new of a piece; empty if nothing is."""
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
        """Gives what is still to be told at the end of the model's answer."""
        if self._pieces:
            return ""
        self._pieces.append(_NONE)
        return _NONE

    def _end_in(self, piece: str) -> int:
        """Where the object ends in a piece, or the end of the piece."""
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
