"""Builds the uploads of documents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from src.config import Settings
from src.services.audit_logger import AuditLogger
from src.services.uploads.directory_storage import DirectoryStorage
from src.services.uploads.retention import UploadRetention
from src.services.uploads.storage import UploadStorage
from src.services.uploads.upload_service import UploadService
from src.utils.background_task import BackgroundTask
from src.utils.database import Database


@dataclass(frozen=True, slots=True)
class Uploads:
    """`storage` and `retention` are None if uploads are off."""

    service: UploadService
    storage: UploadStorage | None
    retention: UploadRetention | None

    @classmethod
    def build(cls, settings: Settings, *, database: Database, audit: AuditLogger) -> Self:
        storage = _storage(settings, database)
        return cls(
            service=UploadService(settings, database, storage, audit),
            storage=storage,
            retention=UploadRetention(database, storage) if storage is not None else None,
        )

    @property
    def tasks(self) -> dict[str, BackgroundTask]:
        """The background tasks by their name in the health report."""
        return {} if self.retention is None else {"upload_retention": self.retention}

    def close(self) -> None:
        if self.storage is not None:
            self.storage.close()


def _storage(settings: Settings, database: Database) -> UploadStorage | None:
    if settings.UPLOADS_S3_TARGET:
        # Imported here, since the library of S3 takes 30 MiB of memory.
        from src.services.uploads.s3_storage import S3Storage  # noqa: PLC0415

        return S3Storage(settings, database)
    directory = settings.UPLOADS_DIRECTORY
    return DirectoryStorage(Path(directory)) if directory else None
