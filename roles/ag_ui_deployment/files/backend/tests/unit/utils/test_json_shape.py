"""The scanner agrees with a parser, wherever the text is split."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.utils import json_shape
from src.utils.json_shape import JsonShape, JsonTooComplexError

TEXTS = st.text(alphabet='ab"\\,[]{}:\n\u2028\U0001f988')
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


def size(value: Any) -> int:
    """Count the values; an empty list or object counts as two."""
    if not isinstance(value, list | dict):
        return 1
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(1, sum(size(one) for one in inner))


def depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((depth(one) for one in inner), default=0)


def passes(pieces: list[bytes], max_values: int = 10_000, max_depth: int = 10_000) -> bool:
    shape = JsonShape(max_values, max_depth)
    try:
        for piece in pieces:
            shape.feed(piece)
    except JsonTooComplexError:
        return False
    return True


@given(VALUES, st.data())
def test_limits_agree_with_a_parser(value: Any, data: st.DataObject) -> None:
    text = orjson.dumps(value)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    # Counting empty lists and objects as two makes the limit at most that much too high.
    assert passes(pieces, max_values=size(value))
    counted = next(maximum for maximum in range(1, 10_000) if passes(pieces, max_values=maximum))
    assert size(value) // 2 < counted <= size(value)
    assert passes(pieces, max_depth=depth(value))
    if depth(value):
        assert not passes(pieces, max_depth=depth(value) - 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":' * 65, "nests deeper than 64 levels"),
        (b"[" * 65, "nests deeper than 64 levels"),
        (b"[" + b"1," * 20_000, "has more than 20000 values"),
        (b"[]" * 20_000, "has more than 20000 values"),
        (b"]" * 10, "closes more brackets than it opens"),
    ],
)
def test_error_names_the_limit(text: bytes, message: str) -> None:
    with pytest.raises(JsonTooComplexError, match=message):
        JsonShape().feed(text)


def test_largest_text_within_the_limits_is_accepted() -> None:
    shape = JsonShape()
    shape.feed(b"[" + b"[" * 63 + b"]" * 63 + b",1" * 19_000 + b"]")
    assert passes([b'["', *([b'\\",[{' * 10_000] * 50), b'"]'], 2, 1)


class Counting:
    """A pattern that counts the bytes it receives."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.seen = 0

    def sub(self, replacement: bytes, text: bytes) -> bytes:
        self.seen += len(text)
        return self._pattern.sub(replacement, text)


@pytest.mark.parametrize("unit", [b'"', b'\\"', b"\\", b'"\\', b"a", b'",'])
def test_each_byte_is_scanned_once(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(json_shape._STRING)
    monkeypatch.setattr(json_shape, "_STRING", counting)
    shape = JsonShape(max_values=10**9)
    pieces = [unit * 1000] * 20
    for piece in pieces:
        shape.feed(piece)
    sent = sum(map(len, pieces))
    # A backslash waits for the byte that it escapes.
    assert counting.seen <= sent + 2 * len(pieces)
