"""Where the bytes of uploads are: what a directory and an S3 bucket have in common."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from io import IOBase
from typing import ClassVar, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.services.uploads.document_types import suffix_of
from src.services.uploads.errors import UploadStorageError
from src.utils.errors import DomainError

logger = structlog.get_logger(__name__)

_T = TypeVar("_T")


class Hasher(Protocol):
    """An object of hashlib."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class LockedUpload(Protocol):
    """An incomplete upload that no other request can change."""

    async def size(self) -> int:
        """How many bytes are stored."""

    async def append(self, chunk: bytes, hasher: Hasher | None) -> None:
        """Add bytes. With a hasher, which gets them too, none of them counts before sync()."""

    async def truncate(self, size: int) -> None:
        """Drop the bytes from an earlier size on."""

    async def sync(self) -> None:
        """Wait until all bytes are stored durably."""

    async def detect(self, size: int, name: str | None) -> str | None:
        """The type of the document, all bytes of which are stored; None if it is unknown."""


class UploadStorage(ABC):
    """Calls blocking functions of the storage in threads of its own.

    Attributes:
        threads: How many; a slow storage must not delay other work in threads.
        max_transfers: How many requests may send bytes at a time.
        failures: Exceptions of the storage.
        address: What the names of complete uploads are appended to, with a slash.
    """

    threads: ClassVar[int]
    max_transfers: ClassVar[int]
    failures: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, address: str) -> None:
        self.address = address
        self._executor = ThreadPoolExecutor(self.threads, "uploads")

    def close(self) -> None:
        self._executor.shutdown(wait=False)

    @abstractmethod
    async def create(self, session: AsyncSession, upload_id: UUID) -> None:
        """Prepare an upload, in the transaction that adds its row.

        Raises:
            UploadStorageError: The storage cannot be used.
            UploadsFullError: It is full.
        """

    @abstractmethod
    async def sizes(self, ids: Iterable[UUID]) -> dict[UUID, int]:
        """How many bytes of incomplete uploads have arrived, of those that exist."""

    @abstractmethod
    def locked(self, upload_id: UUID) -> AbstractAsyncContextManager[LockedUpload]:
        """Lock an incomplete upload.

        Raises:
            UploadLockedError: Another request has the lock.
            UploadNotFoundError: There is no such upload.
        """

    @abstractmethod
    async def publish(self, upload_id: UUID, type_: str) -> bool:
        """Give a complete upload its final name, if it does not have it yet.

        Returns:
            Whether it exists.
        """

    @abstractmethod
    async def remove(self, upload_id: UUID) -> None:
        """Delete the bytes of an upload, if there are any."""

    @abstractmethod
    async def older_than(self, seconds: float) -> set[UUID]:
        """The ids of all uploads with bytes that were not written to for this time."""

    @staticmethod
    def name_of(upload_id: UUID, type_: str) -> str:
        """The name of a complete upload."""
        return f"{upload_id}{suffix_of(type_)}"

    async def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function of the storage in a thread.

        If the caller is cancelled, this waits for the function first: its file must not be closed, nor
        the lock be released, before it has ended.

        Raises:
            UploadStorageError: The storage has failed.
            UploadsFullError: It is full.
        """
        future = asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if future.exception() is None and isinstance(result := future.result(), IOBase):
                result.close()
            raise
        except self.failures as error:
            domain_error = self._domain_error(error)
            if isinstance(domain_error, UploadStorageError):
                logger.error("upload_storage_failed", error=str(error))  # noqa: TRY400 - no bug
            raise domain_error from None

    @abstractmethod
    def _domain_error(self, error: Exception) -> DomainError:
        """What a failure of the storage means."""
