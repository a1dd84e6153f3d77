"""Joins the streamed fragments of the arguments of one tool call, a JSON object. No I/O."""

import re

_TOKENS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_EMPTY_OBJECT = "{}"


class ToolArguments:
    """Joins fragments, and ignores further ones once the object is complete.

    Some gateways repeat the whole object in a last fragment. Others send an empty object before the
    fragments of the real one. `{}` alone is therefore not sent yet; finish() returns it if nothing
    followed.
    """

    def __init__(self) -> None:
        self._fragments: list[str] = []
        self._depth = 0
        self._in_string = False
        # The last fragment ended between a backslash and the character that it escapes.
        self._escaped = False
        self._has_ended = False
        self._is_empty_object = False

    def __str__(self) -> str:
        return "".join(self._fragments)

    @property
    def is_complete(self) -> bool:
        """Whether the object is complete, according to the fragments so far."""
        return self._has_ended or self._is_empty_object

    @property
    def is_partial(self) -> bool:
        """Whether the object has started and is incomplete."""
        return bool(self._fragments) and not self.is_complete

    def is_repeated_by(self, fragment: str) -> bool:
        """Whether a fragment repeats the whole object."""
        return self.is_complete and fragment == (str(self) or _EMPTY_OBJECT)

    def add(self, fragment: str) -> str:
        """Returns the new part of a fragment; empty if there is none."""
        if self._has_ended or not fragment:
            return ""
        if not self._fragments and fragment.strip() == _EMPTY_OBJECT:
            self._is_empty_object = True
            return ""
        self._is_empty_object = False
        new = fragment[: self._end_index(fragment)]
        self._fragments.append(new)
        return new

    def finish(self) -> str:
        """Returns the rest to send at the end of the answer."""
        if self._fragments:
            return ""
        self._fragments.append(_EMPTY_OBJECT)
        return _EMPTY_OBJECT

    def _end_index(self, fragment: str) -> int:
        """Returns the index at which the object or the fragment ends."""
        start = int(self._escaped)
        self._escaped = False
        for token in _TOKENS.finditer(fragment, start):
            character = token[0]
            if self._in_string:
                if character == '"':
                    self._in_string = False
                elif character == "\\":
                    self._escaped = True
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._has_ended = True
                    return token.end()
        return len(fragment)
