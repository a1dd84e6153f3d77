"""Cursors of lists."""

import pytest

from src.utils.pagination import CursorRejectedError, decode_cursor, encode_cursor


@pytest.mark.parametrize("parts", [("a",), ("a", "b"), ("a", "b with spaces "), ("", "")])
def test_decoded_cursor_has_the_encoded_parts(parts: tuple[str, ...]) -> None:
    assert decode_cursor(encode_cursor("jobs", *parts), "jobs", len(parts)) == list(parts)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "jobs",
        "not base64",
        "\u00e4",
        encode_cursor("accounts", "a", "b"),
        encode_cursor("a", "b"),
        encode_cursor("jobs", "a"),
        encode_cursor("jobs", "a", "b\0"),
    ],
)
def test_cursor_that_the_list_did_not_give_is_rejected(cursor: str) -> None:
    with pytest.raises(CursorRejectedError):
        decode_cursor(cursor, "jobs", 2)
