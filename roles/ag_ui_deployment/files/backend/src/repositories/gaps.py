"""Queries on gaps of the event stream."""

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.event import StreamId
from src.models.gap import GapRow

# Parts of a Redis stream id are unsigned 64-bit, columns are signed.
_BIGINT_MAX = 2**63 - 1


async def add(
    session: AsyncSession, after: StreamId, before: StreamId, reason: str, entries: int
) -> None:
    """Store a gap, unless it is already stored.

    Args:
        session: The transaction.
        after: The lost entries have greater ids than this.
        before: The lost entries have smaller ids than this.
        reason: Why they were lost.
        entries: Number of lost entries.
    """
    statement = insert(GapRow).values(
        after_ms=min(after.ms, _BIGINT_MAX),
        after_seq=min(after.seq, _BIGINT_MAX),
        before_ms=min(before.ms, _BIGINT_MAX),
        before_seq=min(before.seq, _BIGINT_MAX),
        reason=reason,
        entries=entries,
    )
    await session.execute(statement.on_conflict_do_nothing())


async def is_any_above(session: AsyncSession, cursor: StreamId) -> bool:
    """Whether any gap ends above an id."""
    key = tuple_(GapRow.before_ms, GapRow.before_seq)
    query = select(GapRow.reason).where(key > tuple_(*cursor)).limit(1)
    return await session.scalar(query) is not None
