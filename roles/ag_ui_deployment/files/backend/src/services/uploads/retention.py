"""Deletes expired uploads, and files that belong to no upload."""

from uuid import UUID

from src.repositories import uploads as rows
from src.services.uploads.errors import UploadLockedError, UploadNotFoundError
from src.services.uploads.storage import UploadStorage
from src.utils.database import Database
from src.utils.retention_task import RetentionTask

_BATCH = 200
# A file is older than its row, for as long as the transaction takes that adds the row.
_ORPHANED_AFTER_SECONDS = 3600.0


class UploadRetention(RetentionTask):
    lock_key = rows.RETENTION_LOCK
    outage_event = "upload_retention_put_off"
    failure_event = "upload_retention_failed"
    first_seconds = 90.0
    every_seconds = 600.0

    def __init__(self, database: Database, storage: UploadStorage) -> None:
        super().__init__("upload-retention", database)
        self._storage = storage

    async def _retain(self) -> None:
        await self._delete_expired()
        await self._delete_orphans()

    async def _delete_expired(self) -> None:
        progresses = True
        while progresses and not self._stop.is_set():
            async with self._database.transaction() as session:
                ids = await rows.expired(session, _BATCH)
            # Those that are being received stay: their time is extended.
            progresses = any([await self._delete_unless_locked(upload_id) for upload_id in ids])

    async def _delete_unless_locked(self, upload_id: UUID) -> bool:
        try:
            async with self._storage.locked(upload_id):
                return await self._delete(upload_id)
        except UploadLockedError:
            return False
        except UploadNotFoundError:
            # It is complete.
            return await self._delete(upload_id)

    async def _delete(self, upload_id: UUID) -> bool:
        async with self._database.transaction() as session:
            is_deleted = await rows.remove_expired(session, upload_id)
        if is_deleted:
            await self._storage.remove(upload_id)
        return is_deleted

    async def _delete_orphans(self) -> None:
        ids = sorted(await self._storage.older_than(_ORPHANED_AFTER_SECONDS))
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            async with self._database.transaction() as session:
                existing = await rows.existing(session, batch)
            for upload_id in set(batch) - existing:
                await self._storage.remove(upload_id)
