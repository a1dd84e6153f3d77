"""Cursors of lists: where the next page begins, as an opaque text."""

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


def encode_cursor(*parts: str) -> str:
    """Join the parts of a cursor; only the last one may contain spaces."""
    return urlsafe_b64encode(" ".join(parts).encode()).decode()


def decode_cursor(cursor: str, parts: int) -> list[str]:
    """Split a cursor into so many parts. Raises CursorRejectedError."""
    try:
        text = b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise CursorRejectedError from None
    found = text.split(" ", parts - 1)
    # PostgreSQL takes no NUL in a text.
    if len(found) != parts or "\0" in text:
        raise CursorRejectedError
    return found


def parse_moment(text: str) -> datetime:
    """Read the time in a cursor, as UTC. Raises CursorRejectedError."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise CursorRejectedError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise CursorRejectedError from None
