"""Stores batches of stream entries, one transaction each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from src.models.event import Poison, ShieldEvent
from src.repositories import events as event_rows
from src.repositories import jobs as job_rows
from src.services.event_parser import dump_fields
from src.services.job_summary import summarise
from src.utils.database import DATABASE_ERRORS, Database, is_bad_data


@dataclass(slots=True)
class Stored:
    """What became of a batch."""

    events: int = 0
    poison: list[Poison] = field(default_factory=list)


class EventStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def ping(self) -> None:
        await self._database.ping()

    async def store(self, entries: Sequence[ShieldEvent | Poison]) -> Stored:
        """Commit a batch, whole. What cannot be stored for its values becomes a dead letter.

        Raises DATABASE_ERRORS when nothing was stored for another reason.
        """
        try:
            return await self._store_together(entries)
        except Exception as error:
            if isinstance(error, DATABASE_ERRORS) and not is_bad_data(error):
                raise
            # Bad values, or a defect of ours: it must cost one entry and not the stream.
            if len(entries) == 1:
                return await self._store_together([_refused(entries[0], error)])
        # One of them is refused: halve until it stands alone. All of this is idempotent.
        middle = len(entries) // 2
        first = await self.store(entries[:middle])
        second = await self.store(entries[middle:])
        return Stored(first.events + second.events, first.poison + second.poison)

    async def _store_together(self, entries: Sequence[ShieldEvent | Poison]) -> Stored:
        events = [entry for entry in entries if isinstance(entry, ShieldEvent)]
        poison = [entry for entry in entries if isinstance(entry, Poison)]
        async with self._database.transaction() as session:
            await event_rows.add_events(session, events)
            await event_rows.add_dead_letters(session, poison)
            await job_rows.merge(session, summarise(events))
        return Stored(len(events), poison)


def _refused(entry: ShieldEvent | Poison, error: BaseException) -> Poison:
    if isinstance(entry, Poison):
        # What is left of it cannot be stored either; the reason alone can.
        return Poison(entry.id, entry.reason.encode("ascii", "backslashreplace").decode(), b"")
    fields = {
        b"event_id": entry.event_id.encode(),
        b"type": entry.type.encode(),
        b"job_id": (entry.job_id or "").encode(),
        b"data": orjson.dumps(entry.data),
        b"metadata": orjson.dumps(entry.metadata),
    }
    reason = f"cannot be stored: {type(error.__cause__ or error).__name__}"
    return Poison(entry.id, reason, dump_fields(fields))
