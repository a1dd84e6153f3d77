"""Stores batches of stream entries, one transaction per batch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import orjson

from src.models.event import Poison, ShieldEvent, StreamId
from src.repositories import events as event_rows
from src.repositories import jobs as job_rows
from src.services.consumer.job_changes import summarize
from src.services.consumer.losses import Loss
from src.services.shield.parser import dump_fields
from src.utils.database import DATABASE_ERRORS, Database, is_bad_data

# The maximum of a bigint in PostgreSQL; parts of a stream id in Redis go up to 2**64 - 1.
MAX_ID_PART = 2**63 - 1


@dataclass(slots=True)
class StoreResult:
    """The result of storing a batch; `events` counts events that were not stored before."""

    events: int = 0
    poison: list[Poison] = field(default_factory=list)


class EventStore:
    """The stored entries of the stream, in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest_id(self) -> StreamId | None:
        """Returns the greatest id of all stored events."""
        async with self._database.transaction() as session:
            return await event_rows.newest(session)

    async def missing(self, ids: Collection[StreamId]) -> list[StreamId]:
        """Returns the ids that are stored neither as events nor as dead letters, in order."""
        if not ids:
            return []
        async with self._database.transaction() as session:
            return sorted(set(ids) - await event_rows.stored_among(session, ids))

    async def record(self, losses: Sequence[Loss]) -> None:
        """Records lost entries in the table `stream_gaps`."""
        async with self._database.transaction() as session:
            for loss in losses:
                after, before = _storable(loss.after), _storable(loss.before)
                await event_rows.add_gap(session, after, before, loss.how, loss.entries)

    async def store(self, entries: Sequence[ShieldEvent | Poison]) -> StoreResult:
        """Stores a batch; entries with values that PostgreSQL rejects become dead letters.

        Args:
            entries: Parsed entries of the stream.

        Returns:
            The number of new events, and the dead letters.

        Raises:
            DATABASE_ERRORS: Nothing or only a part was stored, for another reason. Storing can be
                repeated.
        """
        try:
            return await self._store_together(entries)
        except Exception as error:
            if isinstance(error, DATABASE_ERRORS) and not is_bad_data(error):
                raise
            # Rejected values or a defect of this code must cost one entry and not stop the stream.
            if len(entries) == 1:
                return await self._store_together([_rejected(entries[0], error)])
        # Halves the batch until the rejected entry is alone. Storing is idempotent.
        middle = len(entries) // 2
        first = await self.store(entries[:middle])
        second = await self.store(entries[middle:])
        return StoreResult(first.events + second.events, first.poison + second.poison)

    async def _store_together(self, entries: Sequence[ShieldEvent | Poison]) -> StoreResult:
        events = [entry for entry in entries if isinstance(entry, ShieldEvent)]
        poison = [entry for entry in entries if isinstance(entry, Poison)]
        async with self._database.transaction() as session:
            added = await event_rows.add_events(session, events)
            await event_rows.add_dead_letters(session, poison)
            await job_rows.merge(session, summarize(events))
        return StoreResult(added, poison)


def _storable(stream_id: StreamId) -> StreamId:
    return StreamId(min(stream_id.ms, MAX_ID_PART), min(stream_id.seq, MAX_ID_PART))


def _rejected(entry: ShieldEvent | Poison, error: BaseException) -> Poison:
    if isinstance(entry, Poison):
        # The fields of the letter were rejected too; keep only the reason.
        return Poison(entry.id, entry.reason.encode("ascii", "backslashreplace").decode(), b"")
    fields = {
        b"event_id": entry.event_id.encode(errors="backslashreplace"),
        b"type": entry.type.encode(errors="backslashreplace"),
        b"timestamp": event_rows.moment(entry.timestamp).isoformat().encode(),
        b"job_id": (entry.job_id or "").encode(errors="backslashreplace"),
        b"data": orjson.dumps(entry.data),
        b"metadata": orjson.dumps(entry.metadata),
    }
    reason = f"cannot be stored: {type(error.__cause__ or error).__name__}"
    return Poison(entry.id, reason, dump_fields(fields))
