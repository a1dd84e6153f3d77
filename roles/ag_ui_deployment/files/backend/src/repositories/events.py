"""Queries on stored Shield events and dead letters."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.event import DeadLetterRow, EventRow, Poison, ShieldEvent, StreamId

_KEY = tuple_(EventRow.stream_ms, EventRow.stream_seq)


async def add_events(session: AsyncSession, events: Sequence[ShieldEvent]) -> None:
    """Store events; those that are stored already stay as they are."""
    if events:
        await session.execute(
            insert(EventRow.__table__).on_conflict_do_nothing(),  # type: ignore[arg-type]
            [_row(event) for event in events],
        )


async def add_dead_letters(session: AsyncSession, poison: Sequence[Poison]) -> None:
    if poison:
        rows = [
            {
                "stream_ms": entry.id.ms,
                "stream_seq": entry.id.seq,
                "reason": entry.reason,
                "fields": entry.fields,
            }
            for entry in poison
        ]
        statement = insert(DeadLetterRow.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]
        await session.execute(statement, rows)


async def page(
    session: AsyncSession,
    after: StreamId,
    before: StreamId,
    limit: int,
    job_id: str | None = None,
) -> list[ShieldEvent]:
    """Events with after < id < before in stream order, of one job or of all."""
    query = (
        select(EventRow)
        .where(tuple_(*after) < _KEY, tuple_(*before) > _KEY)
        .order_by(EventRow.stream_ms, EventRow.stream_seq)
        .limit(limit)
    )
    if job_id is not None:
        query = query.where(EventRow.job_id == job_id)
    return [_event(row) for row in await session.scalars(query)]


async def of_jobs(
    session: AsyncSession, job_ids: Collection[str], before: StreamId
) -> list[ShieldEvent]:
    """All events of the jobs below an id, in stream order."""
    query = (
        select(EventRow)
        .where(EventRow.job_id.in_(job_ids), tuple_(*before) > _KEY)
        .order_by(EventRow.stream_ms, EventRow.stream_seq)
    )
    return [_event(row) for row in await session.scalars(query)]


def _row(event: ShieldEvent) -> dict[str, Any]:
    return {
        "stream_ms": event.id.ms,
        "stream_seq": event.id.seq,
        "event_id": event.event_id,
        "type": event.type,
        "job_id": event.job_id,
        "occurred_at": moment(event.timestamp),
        "data": event.data,
        "metadata": event.metadata,
    }


def _event(row: EventRow) -> ShieldEvent:
    return ShieldEvent(
        id=StreamId(row.stream_ms, row.stream_seq),
        event_id=row.event_id,
        type=row.type,
        timestamp=round(row.occurred_at.timestamp() * 1000),
        job_id=row.job_id,
        data=row.data,
        metadata=row.event_metadata,
    )


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
