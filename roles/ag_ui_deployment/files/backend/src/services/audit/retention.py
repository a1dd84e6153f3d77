"""Deletes entries of the audit log that are older than AUDIT_RETENTION_DAYS."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.audit import BrokenLink
from src.repositories import audit as audit_rows
from src.services.audit.checkpoint_signer import CheckpointSigner
from src.services.audit.verifier import AuditVerifier, VerificationStoppedError
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.utils.database import Database
from src.utils.retention_task import RetentionTask

_DELETE_ENTRIES = 2000


class ChainBrokenError(Exception):
    """What is to be deleted does not verify: the evidence would go with it."""

    def __init__(self, broken: BrokenLink) -> None:
        super().__init__(f"entry {broken.seq}: {broken.reason}")
        self.broken = broken


class AuditRetention(RetentionTask):
    """Deletes old entries once an hour."""

    lock_key = audit_rows.RETENTION_LOCK
    outage_event = "audit_retention_put_off"
    failure_event = "audit_retention_failed"
    first_seconds = 300.0
    every_seconds = 3600.0

    def __init__(
        self,
        database: Database,
        signer: CheckpointSigner,
        verifier: AuditVerifier,
        audit: AuditLogger,
        settings: Settings,
    ) -> None:
        super().__init__("audit-retention", database)
        self._signer = signer
        self._verifier = verifier
        self._audit = audit
        self._age = timedelta(days=settings.AUDIT_RETENTION_DAYS)

    async def retain(self, actor: str, *, even_if_broken: bool = False) -> int:
        """Delete entries older than the retention, except the newest one.

        Waits if another instance is doing so.

        Args:
            actor: The actor to record.
            even_if_broken: Whether to delete entries that do not verify.

        Returns:
            How many entries were deleted.

        Raises:
            ChainBrokenError: The entries to delete do not verify.
        """
        async with self._database.alone(self.lock_key, wait=True):
            return await self._retain(actor, even_if_broken=even_if_broken)

    async def _run_once(self) -> None:
        try:
            await self.retain_if_alone()
        except VerificationStoppedError:
            # The loop has been asked to stop.
            return
        except ChainBrokenError as error:
            broken = error.broken
            self._logger.warning("audit_retention_refused", seq=broken.seq, reason=broken.reason)

    async def _retain(self, actor: str = "retention", *, even_if_broken: bool = False) -> int:
        async with self._database.transaction() as session:
            last = await audit_rows.last_deletable(session, self._age)
        if last is None:
            return 0
        if not even_if_broken:
            await self._check_through(last.seq)
        # Signed before the deletion: verification then starts after this entry.
        await self._signer.sign_retention(last)
        deleted = await self._in_batches(lambda session: self._delete_some(session, last.seq))
        details = {"through": last.seq, "entries": deleted, "even_if_broken": even_if_broken}
        await self._audit.record(
            AuditEvent(Action.AUDIT_RETAIN, actor=actor, target="audit", details=details)
        )
        return deleted

    async def _check_through(self, seq: int) -> None:
        found = await self._verifier.verify(through=seq, stopped=self._stop.is_set)
        if found.broken is not None:
            raise ChainBrokenError(found.broken)

    async def _delete_some(self, session: AsyncSession, through: int) -> int:
        await audit_rows.lock_checkpoints(session)
        return await audit_rows.delete_through(session, through, _DELETE_ENTRIES)
