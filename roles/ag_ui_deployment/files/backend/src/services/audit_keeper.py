"""Keeps the audit log: signs checkpoints, and lets go of what is older than the retention."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.audit import BrokenLink, CheckpointRow, Purpose
from src.repositories import audit as audit_rows
from src.services.audit_chain import Head
from src.services.audit_keys import AuditKeys, Checkpoint
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.services.audit_verifier import AuditVerifier
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database

logger = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
_RETAIN_SECONDS = 3600.0
_DELETE_ENTRIES = 2000


class ChainBrokenError(Exception):
    """What is to be deleted does not verify: the evidence would go with it."""

    def __init__(self, broken: BrokenLink) -> None:
        super().__init__(f"entry {broken.seq}: {broken.reason}")
        self.broken = broken


class AuditKeeper(BackgroundTask):
    """Every instance has one; each piece of work is done by whichever comes first."""

    def __init__(
        self, database: Database, keys: AuditKeys, audit: AuditLogger, settings: Settings
    ) -> None:
        super().__init__("audit-keeper")
        self._database = database
        self._keys = keys
        self._audit = audit
        self._verifier = AuditVerifier(database, keys)
        self._entries = settings.AUDIT_CHECKPOINT_ENTRIES
        self._pause = timedelta(minutes=settings.AUDIT_CHECKPOINT_MINUTES)
        self._retention = timedelta(days=settings.AUDIT_RETENTION_DAYS)

    async def checkpoint_if_due(self) -> None:
        async with self._database.transaction() as session:
            if not await audit_rows.may_keep(session):
                return
            head = await audit_rows.head(session)
            last = await audit_rows.newest_checkpoint(session)
            if head is not None and self._is_due(head, last):
                await self._sign(session, Purpose.INTERVAL, head)

    async def retain(self, *, even_if_broken: bool = False) -> int:
        """Delete what is older than the retention, but never the newest entry; gives how many.

        A signed checkpoint is recorded first, on which the rest of the chain follows. Raises
        ChainBrokenError.
        """
        through = await self._last_to_go()
        if through is None:
            return 0
        if not even_if_broken:
            verification = await self._verifier.verify()
            broken = verification.broken
            if broken is not None and broken.seq <= through:
                raise ChainBrokenError(broken)
        return await self._delete_through(through)

    async def _run(self) -> None:
        retained_at = -_RETAIN_SECONDS
        while not self._stop.is_set():
            try:
                await self.checkpoint_if_due()
                if time.monotonic() - retained_at > _RETAIN_SECONDS:
                    retained_at = time.monotonic()
                    await self._retain_or_tell()
                self.status = "keeping"
            except DATABASE_ERRORS as error:
                if self.waits_for("PostgreSQL", error):
                    logger.warning("audit_keeper_waits_for_database", error=str(error))
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._stop.wait()
            except TimeoutError:
                pass

    async def _retain_or_tell(self) -> None:
        try:
            await self.retain()
        except ChainBrokenError as error:
            broken = error.broken
            logger.warning("audit_retention_refused", seq=broken.seq, reason=broken.reason)

    def _is_due(self, head: Head, last: CheckpointRow | None) -> bool:
        if last is None:
            return True
        news = head.seq - last.seq
        return news >= self._entries or (news > 0 and datetime.now(UTC) - last.at >= self._pause)

    async def _last_to_go(self) -> int | None:
        """The newest of the oldest entries that are all beyond the retention."""
        async with self._database.transaction() as session:
            head = await audit_rows.head(session)
            oldest = await audit_rows.oldest_seq(session)
            if head is None or oldest is None:
                return None
            kept = await audit_rows.first_seq_since(session, datetime.now(UTC) - self._retention)
            through = min(head.seq, kept or head.seq) - 1
            return through if through >= oldest else None

    async def _delete_through(self, through: int) -> int:
        async with self._database.transaction() as session:
            if not await audit_rows.may_keep(session):
                return 0
            hashed = await audit_rows.hash_of(session, through)
            if hashed is None:
                return 0
            await self._sign(session, Purpose.RETENTION, Head(through, hashed))
        deleted = 0
        while some := await self._delete_some(through):
            deleted += some
        await self._audit.record(
            AuditEvent(
                Action.AUDIT_RETAIN,
                actor="retention",
                details={"through": through, "entries": deleted},
            )
        )
        return deleted

    async def _delete_some(self, through: int) -> int:
        async with self._database.transaction() as session:
            if not await audit_rows.may_keep(session):
                return 0
            return await audit_rows.delete_through(session, through, _DELETE_ENTRIES)

    async def _sign(self, session: AsyncSession, purpose: Purpose, head: Head) -> None:
        last = await audit_rows.newest_checkpoint(session)
        number = last.number + 1 if last else 1
        row = self._keys.sign(Checkpoint(number, purpose, head, datetime.now(UTC)))
        session.add(row)
        await session.flush()
        # In the journal too: who deletes checkpoints does not reach this line.
        logger.info(
            "audit_checkpoint",
            number=number,
            purpose=purpose.value,
            seq=head.seq,
            hash=head.hash.hex(),
            key_id=row.key_id,
            signature=row.signature.hex(),
        )
