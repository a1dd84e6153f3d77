"""Appends batches of entries to the chain, whoever else appends at the same time."""

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
class _Attempt:
    """A batch whose commit was asked for, and of which we never heard."""

    end: Head
    entries: int


class AuditStore:
    """Invariants.

    - One transaction at a time reads the head and appends to it, over all instances.
    - A batch whose commit was not confirmed is looked for before anything is appended again.
    - A log in which the last entry that this process has appended is missing, or another, is not
      gone on with silently: the next entry follows on the one that is known here, and the hole shows
      in every verification.
    - Entries are dated by the clock of the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._last = START
        self._attempt: _Attempt | None = None

    async def append(self, entries: Sequence[Entry]) -> int:
        """Store the entries; gives how many of them, from the first on, are stored now.

        Raises DATABASE_ERRORS. Called again after an error it must get the same entries first.
        """
        async with self._lock:
            return await self._append(entries)

    async def _append(self, entries: Sequence[Entry]) -> int:
        async with self._database.transaction() as session:
            ahead = await audit_rows.lock_chain(session) - datetime.now(UTC)
            attempt = self._attempt
            if attempt is None or not await audit_rows.contains(session, attempt.end):
                head = await self._continued(session)
                links = list(chain(head, [replace(one, at=one.at + ahead) for one in entries]))
                attempt = self._attempt = _Attempt(links[-1].head, len(links))
                await audit_rows.add(session, links)
        self._last, self._attempt = attempt.end, None
        return attempt.entries

    async def _continued(self, session: AsyncSession) -> Head:
        """What the next entry follows on."""
        head = await audit_rows.head(session) or START
        last = self._last
        if last in (START, head) or await audit_rows.contains(session, last):
            return head
        oldest = await audit_rows.oldest_seq(session)
        if oldest is not None and oldest > last.seq:
            # Entries are let go from the beginning on.
            return head
        logger.error("audit_log_cut", ends_at=head.seq, known_to=last.seq)
        return Head(max(head.seq, last.seq), last.hash)
