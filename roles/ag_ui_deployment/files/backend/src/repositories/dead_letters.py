"""Queries of administrators on dead letters. The consumer inserts them with events.py."""

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from src.models.event import DeadLetterRow, StreamId
from src.models.stream import LetterState

_KEY = tuple_(DeadLetterRow.stream_ms, DeadLetterRow.stream_seq)


async def page(
    session: AsyncSession, state: LetterState, before: StreamId | None, limit: int, max_bytes: int
) -> list[tuple[DeadLetterRow, bytes]]:
    """Read a page of dead letters, newest first.

    Args:
        session: The transaction.
        state: Which dead letters.
        before: The id after the page in stream order; None for the first page.
        limit: Maximum number of dead letters.
        max_bytes: Length of the returned prefix of `fields`. The rest is not read.

    Returns:
        For each dead letter its row, without `fields`, and that prefix.
    """
    query = (
        select(DeadLetterRow, func.substring(DeadLetterRow.fields, 1, max_bytes))
        .options(defer(DeadLetterRow.fields, raiseload=True))
        .order_by(DeadLetterRow.stream_ms.desc(), DeadLetterRow.stream_seq.desc())
    )
    if state is LetterState.OPEN:
        query = query.where(DeadLetterRow.closed_at.is_(None))
    elif state is LetterState.CLOSED:
        query = query.where(DeadLetterRow.closed_at.is_not(None))
    if before is not None:
        query = query.where(tuple_(*before) > _KEY)
    return [(row, beginning) for row, beginning in await session.execute(query.limit(limit))]


async def by_id(session: AsyncSession, letter_id: StreamId) -> DeadLetterRow | None:
    return await session.get(DeadLetterRow, tuple(letter_id))


async def close(
    session: AsyncSession, letter_id: StreamId, how: str, by: str
) -> DeadLetterRow | None:
    """Close an open dead letter. Returns None if it is unknown or already closed."""
    statement = (
        update(DeadLetterRow)
        .where(tuple_(*letter_id) == _KEY, DeadLetterRow.closed_at.is_(None))
        .values(closed_at=func.now(), closed_how=how, closed_by=by)
        .returning(DeadLetterRow)
    )
    return await session.scalar(statement)


async def count_open(session: AsyncSession) -> int:
    query = select(func.count()).select_from(DeadLetterRow)
    return await session.scalar(query.where(DeadLetterRow.closed_at.is_(None))) or 0
