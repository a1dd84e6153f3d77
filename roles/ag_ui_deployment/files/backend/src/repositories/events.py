"""Queries on stored Shield events, dead letters and gaps."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from typing import cast as typed_as

import orjson
from sqlalchemy import CursorResult, Text, cast, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.event import DeadLetterRow, EventRow, GapRow, Poison, ShieldEvent, StreamId
from src.repositories.bulk import arrays, insert_arrays
from src.utils.event_loop import cooperative_iter

_KEY = tuple_(EventRow.stream_ms, EventRow.stream_seq)
_EVENT = (
    "stream_ms",
    "stream_seq",
    "event_id",
    "type",
    "job_id",
    "occurred_at",
    "data",
    "metadata",
)
# Columns instead of the mapped class: creating ORM objects would take most of the time of a replay.
_COLUMNS = tuple(EventRow.__table__.c[name] for name in _EVENT)
_ADD_EVENTS = insert_arrays(EventRow, _EVENT).on_conflict_do_nothing()
_DEAD_LETTER = ("stream_ms", "stream_seq", "reason", "fields")
_ADD_DEAD_LETTERS = insert_arrays(DeadLetterRow, _DEAD_LETTER).on_conflict_do_nothing()


async def add_events(session: AsyncSession, events: Sequence[ShieldEvent]) -> int:
    """Insert events. Those already stored are left unchanged.

    Returns:
        How many were inserted.
    """
    if not events:
        return 0
    rows = [_row(event) async for event in cooperative_iter(events)]
    result = await session.execute(_ADD_EVENTS, arrays(_EVENT, rows))
    return typed_as("CursorResult[Any]", result).rowcount


async def add_dead_letters(session: AsyncSession, poison: Sequence[Poison]) -> None:
    if poison:
        rows = [(entry.id.ms, entry.id.seq, entry.reason, entry.fields) for entry in poison]
        await session.execute(_ADD_DEAD_LETTERS, arrays(_DEAD_LETTER, rows))


async def newest(session: AsyncSession) -> StreamId | None:
    """The greatest stored event id."""
    query = select(EventRow.stream_ms, EventRow.stream_seq).order_by(
        EventRow.stream_ms.desc(), EventRow.stream_seq.desc()
    )
    row = (await session.execute(query.limit(1))).first()
    return StreamId(*row) if row else None


async def stored_among(session: AsyncSession, ids: Collection[StreamId]) -> set[StreamId]:
    """Return those of `ids` that are stored, as events or as dead letters."""
    found: set[StreamId] = set()
    for table in (EventRow, DeadLetterRow):
        query = select(table.stream_ms, table.stream_seq).where(
            tuple_(table.stream_ms, table.stream_seq).in_(ids)
        )
        found.update(StreamId(*row) for row in await session.execute(query))
    return found


async def page(
    session: AsyncSession,
    after: StreamId,
    before: StreamId,
    limit: int,
    job_ids: Collection[str] | None = None,
) -> list[ShieldEvent]:
    """Read events with after < id < before in stream order.

    Args:
        session: The transaction.
        after: Exclusive lower bound.
        before: Exclusive upper bound.
        limit: Maximum number of events.
        job_ids: Only events of these jobs; None for all events.
    """
    query = (
        select(*_COLUMNS)
        .where(tuple_(*after) < _KEY, tuple_(*before) > _KEY)
        .order_by(EventRow.stream_ms, EventRow.stream_seq)
        .limit(limit)
    )
    if job_ids is not None:
        query = query.where(EventRow.job_id.in_(job_ids))
    return [_event(tuple(row)) for row in await session.execute(query)]


async def of_job(
    session: AsyncSession, job_id: str, after: StreamId, limit: int, max_bytes: int
) -> list[ShieldEvent]:
    """Read events of a job with id > after in stream order.

    Args:
        session: The transaction.
        job_id: The job.
        after: Exclusive lower bound.
        limit: Maximum number of events.
        max_bytes: Maximum size of their data, which only a single event may exceed.
    """
    first = (
        select(*_COLUMNS)
        .where(EventRow.job_id == job_id, tuple_(*after) < _KEY)
        .order_by(EventRow.stream_ms, EventRow.stream_seq)
        .limit(limit)
        .subquery()
    )
    size = func.octet_length(cast(first.c.data, Text))
    order = (first.c.stream_ms, first.c.stream_seq)
    total = func.sum(size).over(order_by=order)
    sized = select(
        *first.c, total.label("total"), func.row_number().over(order_by=order).label("n")
    )
    bounded = sized.subquery()
    query = (
        select(*(bounded.c[name] for name in _EVENT))
        .where(or_(bounded.c.total <= max_bytes, bounded.c.n == 1))
        .order_by(bounded.c.stream_ms, bounded.c.stream_seq)
    )
    return [_event(tuple(row)) for row in await session.execute(query)]


async def first_id(session: AsyncSession) -> StreamId | None:
    """The smallest stored event id."""
    query = select(EventRow.stream_ms, EventRow.stream_seq).order_by(
        EventRow.stream_ms, EventRow.stream_seq
    )
    row = (await session.execute(query.limit(1))).first()
    return StreamId(*row) if row else None


async def count(session: AsyncSession, after: StreamId, before: StreamId) -> int:
    """Count events and dead letters with after < id < before."""
    total = 0
    for table in (EventRow, DeadLetterRow):
        key = tuple_(table.stream_ms, table.stream_seq)
        query = select(func.count()).where(tuple_(*after) < key, tuple_(*before) > key)
        total += await session.scalar(query.select_from(table)) or 0
    return total


async def add_gap(
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
        after_ms=after.ms,
        after_seq=after.seq,
        before_ms=before.ms,
        before_seq=before.seq,
        reason=reason,
        entries=entries,
    )
    await session.execute(statement.on_conflict_do_nothing())


async def latest_gaps(session: AsyncSession, limit: int) -> Sequence[GapRow]:
    """Read the gaps that end last, the last one first."""
    query = select(GapRow).order_by(GapRow.before_ms.desc(), GapRow.before_seq.desc())
    return list(await session.scalars(query.limit(limit)))


async def is_any_gap_above(session: AsyncSession, cursor: StreamId) -> bool:
    """Whether any gap ends above an id."""
    key = tuple_(GapRow.before_ms, GapRow.before_seq)
    query = select(GapRow.reason).where(key > tuple_(*cursor)).limit(1)
    return await session.scalar(query) is not None


def _row(event: ShieldEvent) -> tuple[Any, ...]:
    return (
        event.id.ms,
        event.id.seq,
        event.event_id,
        event.type,
        event.job_id,
        moment(event.timestamp),
        orjson.dumps(event.data).decode(),
        orjson.dumps(event.metadata).decode(),
    )


def _event(row: Sequence[Any]) -> ShieldEvent:
    ms, seq, event_id, kind, job_id, occurred_at, data, metadata = row
    timestamp = round(occurred_at.timestamp() * 1000)
    return ShieldEvent(StreamId(ms, seq), event_id, kind, timestamp, job_id, data, metadata)


def moment(milliseconds: int) -> datetime:
    """Convert milliseconds since 1970 (UTC)."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
