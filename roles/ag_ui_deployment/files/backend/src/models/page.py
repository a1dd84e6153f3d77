"""How lists are paged."""

from typing import Annotated

from pydantic import Field

# What a server in front of the backend lets through in an address at most.
_CURSOR_MAX = 8000

PageLimit = Annotated[int, Field(ge=1, le=200, description="Items of one page at most")]
PageCursor = Annotated[
    str, Field(max_length=_CURSOR_MAX, description="next_cursor of the page before")
]
