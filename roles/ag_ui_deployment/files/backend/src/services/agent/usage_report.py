"""Sums the tokens that users consumed, for administrators."""

from datetime import date
from uuid import UUID

from src.models.token_usage import UsagePage, UsageQuery, UsageTotal
from src.repositories import token_usage
from src.repositories.token_usage import TotalKey
from src.utils.database import Database
from src.utils.pagination import CursorRejectedError, decode_cursor, encode_cursor

# The name of this list in its cursors.
_LIST = "usage"
# Numbers of so many digits fit into 63 bits.
_DIGITS_MAX = 18


class UsageReport:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, query: UsageQuery) -> UsagePage:
        """Returns a page of totals by user and model, the greatest first.

        Raises:
            CursorRejectedError: The cursor is invalid.
        """
        below = _decode(query.cursor) if query.cursor else None
        async with self._database.transaction() as session:
            totals = await token_usage.totals(
                session,
                since=query.since or date.min,
                until=query.until or date.max,
                below=below,
                limit=query.limit + 1,
            )
        has_more = len(totals) > query.limit
        items = totals[: query.limit]
        return UsagePage(items=items, next_cursor=_encode(items[-1]) if has_more else None)


def _encode(total: UsageTotal) -> str:
    tokens = total.input_tokens + total.output_tokens
    return encode_cursor(_LIST, str(tokens), str(total.user_id), total.model)


def _decode(cursor: str) -> TotalKey:
    tokens, user, model = decode_cursor(cursor, _LIST, 3)
    if not tokens.isascii() or not tokens.isdecimal() or len(tokens) > _DIGITS_MAX:
        raise CursorRejectedError
    try:
        return TotalKey(int(tokens), UUID(user), model)
    except ValueError:
        raise CursorRejectedError from None
