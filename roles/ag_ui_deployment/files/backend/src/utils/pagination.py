"""Cursors of lists: opaque texts that encode where the next page begins."""

from base64 import b64decode, urlsafe_b64encode
from datetime import UTC, datetime

from src.utils.errors import DomainError, FieldFault


class CursorRejectedError(DomainError):
    """The cursor of a list is none that was given out."""

    status = 400
    slug = "bad-cursor"
    title = "The cursor cannot be read"
    detail = "Send the next_cursor of the page before, or none for the first page."
    faults = (FieldFault("query.cursor", "is none that a page gave"),)


def encode_cursor(list_name: str, *parts: str) -> str:
    """Encode a cursor of a list. Only the last part may contain spaces."""
    return urlsafe_b64encode(" ".join((list_name, *parts)).encode()).decode()


def decode_cursor(cursor: str, list_name: str, parts: int) -> list[str]:
    """Decode a cursor.

    Args:
        cursor: The text from the client.
        list_name: The name of the list. Cursors of other lists are invalid.
        parts: The number of parts that the list encodes.

    Raises:
        CursorRejectedError: The cursor is invalid.
    """
    try:
        text = b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise CursorRejectedError from None
    name, *found = text.split(" ", parts)
    # PostgreSQL rejects NUL in texts.
    if name != list_name or len(found) != parts or "\0" in text:
        raise CursorRejectedError
    return found


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 time of a cursor and convert it to UTC.

    Raises:
        CursorRejectedError: It is no time, or has no UTC offset.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise CursorRejectedError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise CursorRejectedError from None
