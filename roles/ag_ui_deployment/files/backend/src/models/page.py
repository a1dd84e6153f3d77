"""Pagination of lists."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

# Exceeds the cursor of a job with the longest id that PostgreSQL can index. Even with every character
# percent-encoded, the URL stays below the 64 KiB that the server accepts.
_CURSOR_MAX = 4000

ItemT = TypeVar("ItemT")

PageLimit = Annotated[int, Field(ge=1, le=200, description="Items of one page at most")]
PageCursor = Annotated[
    str, Field(max_length=_CURSOR_MAX, description="next_cursor of the page before")
]


class Page(BaseModel, Generic[ItemT]):
    """One page of a list; `next_cursor` asks for the next one, null on the last page."""

    items: list[ItemT]
    next_cursor: str | None = None
