"""Appends batches of entries to the chain, concurrently with other instances."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.audit import Entry, Head
from src.repositories import audit as audit_rows
from src.services.audit.chain import START, chain
from src.utils.database import Database

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _UnconfirmedBatch:
    """A batch whose commit has not been confirmed."""

    end: Head
    entries: int


class AuditStore:
    """Appends entries with these invariants.

    - Over all instances, one transaction at a time reads the head and appends to it.
    - If a commit was not confirmed, the store checks whether the batch exists before it appends again.
    - If the last entry that this process appended is missing or replaced, the next entry is chained to
      that known entry, so that every verification finds the gap.
    - Times of entries are those of the clock of the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._last = START
        self._unconfirmed: _UnconfirmedBatch | None = None

    async def append(self, entries: Sequence[Entry]) -> int:
        """Append entries.

        Args:
            entries: The entries. After an error the next call must begin with the same entries.

        Returns:
            How many of the entries, from the first on, are stored.

        Raises:
            DATABASE_ERRORS: Storing failed, or the commit was not confirmed.
        """
        async with self._lock:
            return await self._append(entries)

    async def _append(self, entries: Sequence[Entry]) -> int:
        async with self._database.transaction() as session:
            clock_offset = await audit_rows.lock_chain(session) - datetime.now(UTC)
            batch = self._unconfirmed
            if batch is None or not await audit_rows.contains(session, batch.end):
                head = await self._head_to_extend(session)
                links = list(
                    chain(head, [replace(entry, at=entry.at + clock_offset) for entry in entries])
                )
                batch = self._unconfirmed = _UnconfirmedBatch(links[-1].head, len(links))
                await audit_rows.add(session, links)
        self._last, self._unconfirmed = batch.end, None
        return batch.entries

    async def _head_to_extend(self, session: AsyncSession) -> Head:
        """The head to append to."""
        head = await audit_rows.head(session) or START
        last = self._last
        if last in (START, head) or await audit_rows.contains(session, last):
            return head
        oldest = await audit_rows.oldest_seq(session)
        if oldest is not None and oldest > last.seq:
            # Retention has deleted it, since it deletes from the oldest on.
            return head
        logger.error("audit_log_cut", ends_at=head.seq, known_to=last.seq)
        return Head(max(head.seq, last.seq), last.hash)
