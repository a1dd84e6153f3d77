"""Signs checkpoints of the audit log."""

from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.audit import CheckpointPurpose, CheckpointRow, Head
from src.repositories import audit as audit_rows
from src.services.audit.journal import write_checkpoint
from src.services.audit.keys import AuditKeys, Checkpoint
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database

logger = structlog.get_logger(__name__)

_POLL_SECONDS = 5.0
_PAGE = 500


class _CheckpointState(NamedTuple):
    """The state of the checkpoint table.

    `newest` is the newest valid checkpoint. `is_truncated` is whether the last known checkpoint is missing or
    has another hash.
    """

    now: datetime
    newest: CheckpointRow | None
    is_truncated: bool


class CheckpointSigner(BackgroundTask):
    """Signs checkpoints when they are due. Every instance runs one; the first to notice signs.

    Only checkpoints with a valid signature count. The newest one is remembered. If it is deleted or
    replaced, that is logged, a checkpoint is signed immediately, and a number is skipped, so that every
    verification finds the gap.
    """

    def __init__(self, database: Database, keys: AuditKeys, settings: Settings) -> None:
        super().__init__("audit-keeper")
        self._database = database
        self._keys = keys
        self._max_entries = settings.AUDIT_CHECKPOINT_ENTRIES
        self._interval = timedelta(minutes=settings.AUDIT_CHECKPOINT_MINUTES)
        self._last_known: CheckpointRow | None = None

    async def checkpoint_if_due(self) -> None:
        """Sign a checkpoint for the newest entry if enough entries or time have passed."""
        signed = None
        async with self._database.transaction() as session:
            if not await audit_rows.try_lock_checkpoints(session):
                return
            state = await self._read_state(session)
            head = await audit_rows.head(session)
            if head is not None and self._is_due(head, state):
                signed = await self._sign(session, CheckpointPurpose.INTERVAL, head, state)
        self._remember(state.newest, signed)

    async def sign_retention(self, newest: Head) -> None:
        """Sign a retention checkpoint, which allows deleting the entries up to and including `newest`."""
        async with self._database.transaction() as session:
            await audit_rows.lock_checkpoints(session)
            state = await self._read_state(session)
            signed = await self._sign(session, CheckpointPurpose.RETENTION, newest, state)
        self._remember(signed)

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self.checkpoint_if_due()
                self.status = "keeping"
            except DATABASE_ERRORS as error:
                if self.waits_for("PostgreSQL", error):
                    logger.warning("audit_keeper_waits_for_database", error=str(error))
            except Exception:
                # Invalid rows written by an intruder must not stop this task for good.
                self.status = "trying again: see audit_keeper_failed in the log"
                logger.exception("audit_keeper_failed")
            await self._pause(_POLL_SECONDS)

    def _is_due(self, head: Head, state: _CheckpointState) -> bool:
        newest = state.newest
        if newest is None or state.is_truncated:
            return True
        new_entries = head.seq - newest.seq
        return new_entries >= self._max_entries or (
            new_entries > 0 and state.now - newest.at >= self._interval
        )

    async def _read_state(self, session: AsyncSession) -> _CheckpointState:
        now = await audit_rows.now(session)
        return _CheckpointState(now, await self._newest(session), await self._is_truncated(session))

    async def _newest(self, session: AsyncSession) -> CheckpointRow | None:
        number, limit = None, 1
        while rows := await audit_rows.checkpoints_before(session, number, limit):
            for row in rows:
                if self._keys.find_fault(row) is None:
                    return row
            number, limit = rows[-1].number, _PAGE
        return None

    async def _is_truncated(self, session: AsyncSession) -> bool:
        last_known = self._last_known
        if last_known is None:
            return False
        row = await session.get(CheckpointRow, last_known.number)
        if row is not None:
            return row.hash != last_known.hash
        oldest = await audit_rows.oldest_number(session)
        # Retention deletes checkpoints from the oldest on.
        return oldest is None or oldest < last_known.number

    def _remember(self, *rows: CheckpointRow | None) -> None:
        """Remember the newest checkpoint. Called after the commit, since a rollback is no deletion."""
        checkpoints = [row for row in (self._last_known, *rows) if row is not None]
        self._last_known = max(checkpoints, key=lambda row: row.number, default=None)

    async def _sign(
        self, session: AsyncSession, purpose: CheckpointPurpose, head: Head, state: _CheckpointState
    ) -> CheckpointRow:
        number = await self._next_number(session, state)
        row = self._keys.sign(Checkpoint(number, purpose, head, state.now))
        session.add(row)
        await session.flush()
        write_checkpoint(row)
        return row

    async def _next_number(self, session: AsyncSession, state: _CheckpointState) -> int:
        known_numbers = [row.number for row in (self._last_known, state.newest) if row is not None]
        # If none is valid, the key may have been replaced without keeping the old one.
        number = (
            max(known_numbers) if known_numbers else await audit_rows.newest_number(session)
        ) + 1
        if state.is_truncated:
            logger.error("audit_checkpoints_cut", known_to=max(known_numbers))
            number += 1
        while await session.get(CheckpointRow, number) is not None:
            number += 1
        return number
