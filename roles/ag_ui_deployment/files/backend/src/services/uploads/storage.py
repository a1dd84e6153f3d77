"""The bytes of uploads, in a directory that instances share.

A file has the id of its upload as name: `ID.part` until all bytes have arrived, then `ID` and the
suffix of its type. Whoever writes to it or deletes it holds a lock of the file system (flock), which
ends with the process and, on file systems such as NFS 4 and CephFS, excludes other hosts too.
"""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from io import IOBase
from pathlib import Path
from typing import IO, Protocol, TypeVar
from uuid import UUID

import structlog

from src.services.uploads.document_types import detect, suffix_of
from src.services.uploads.errors import (
    UploadLockedError,
    UploadNotFoundError,
    UploadsFullError,
    UploadStorageError,
)

logger = structlog.get_logger(__name__)

_T = TypeVar("_T")
# Of its own, since a slow file system must not delay other work in threads.
_THREADS = 4
# The group reads, for the tools' server.
_FILE_MODE = 0o640
_PART = ".part"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Hasher(Protocol):
    """An object of hashlib."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class UploadStorage:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._executor = ThreadPoolExecutor(_THREADS, "uploads")

    def close(self) -> None:
        self._executor.shutdown(wait=False)

    async def create(self, upload_id: UUID) -> None:
        """Create an empty file.

        Raises:
            UploadStorageError: The directory cannot be used.
            UploadsFullError: The file system is full.
        """
        await self.run(self._create, upload_id)

    async def sizes(self, ids: Iterable[UUID]) -> dict[UUID, int]:
        """How many bytes of incomplete uploads have arrived, of those that have a file."""
        return await self.run(self._sizes, list(ids))

    @asynccontextmanager
    async def locked(self, upload_id: UUID) -> AsyncIterator["LockedFile"]:
        """Open and lock the file of an incomplete upload.

        Raises:
            UploadLockedError: Another request has the lock.
            UploadNotFoundError: There is no such file.
        """
        file = await self.run(_open_locked, self._part(upload_id))
        try:
            yield LockedFile(self, file)
        finally:
            await self.run(file.close)

    async def publish(self, upload_id: UUID, type_: str) -> bool:
        """Give the file of a complete upload its final name, if it does not have it yet.

        Returns:
            Whether the file exists.
        """
        return await self.run(self._publish, upload_id, type_)

    async def remove(self, upload_id: UUID) -> None:
        """Delete the file of an upload, if it exists."""
        await self.run(self._remove, upload_id)

    async def older_than(self, seconds: float) -> set[UUID]:
        """The ids of all files that were not written to for this time."""
        return await self.run(self._older_than, seconds)

    @staticmethod
    def name_of(upload_id: UUID, type_: str) -> str:
        """The name of the file of a complete upload."""
        return f"{upload_id}{suffix_of(type_)}"

    async def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function of the file system in a thread.

        If the caller is cancelled, this waits for the function first: its file must not be closed, nor
        the lock be released, before it has ended.

        Raises:
            UploadStorageError: The file system has failed.
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
        except OSError as error:
            logger.error("upload_storage_failed", error=str(error))  # noqa: TRY400 - no bug
            if error.errno in _NO_ROOM:
                raise UploadsFullError from None
            raise UploadStorageError from None

    def _part(self, upload_id: UUID) -> Path:
        return self._directory / f"{upload_id}{_PART}"

    def _create(self, upload_id: UUID) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        os.close(os.open(self._part(upload_id), flags, _FILE_MODE))
        self._sync_directory()

    def _sizes(self, ids: list[UUID]) -> dict[UUID, int]:
        sizes = {}
        for upload_id in ids:
            with suppress(FileNotFoundError):
                sizes[upload_id] = self._part(upload_id).stat().st_size
        return sizes

    def _publish(self, upload_id: UUID, type_: str) -> bool:
        final = self._directory / self.name_of(upload_id, type_)
        try:
            self._part(upload_id).rename(final)
        except FileNotFoundError:
            return final.exists()
        self._sync_directory()
        return True

    def _remove(self, upload_id: UUID) -> None:
        for path in self._directory.glob(f"{upload_id}.*"):
            path.unlink(missing_ok=True)

    def _older_than(self, seconds: float) -> set[UUID]:
        latest = time.time() - seconds
        found = set()
        with os.scandir(self._directory) as entries:
            for entry in entries:
                # Of a name that is no id, the directory has not been given to the uploads alone.
                with suppress(ValueError, FileNotFoundError):
                    upload_id = UUID(entry.name.partition(".")[0])
                    if entry.stat(follow_symlinks=False).st_mtime < latest:
                        found.add(upload_id)
        return found

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class LockedFile:
    """The open file of an incomplete upload, which no other request can write to."""

    def __init__(self, storage: UploadStorage, file: IO[bytes]) -> None:
        self._storage = storage
        self._file = file

    async def size(self) -> int:
        return await self._storage.run(lambda: os.fstat(self._file.fileno()).st_size)

    async def append(self, chunks: Sequence[bytes], hasher: Hasher | None) -> None:
        await self._storage.run(_append, self._file, chunks, hasher)

    async def truncate(self, size: int) -> None:
        await self._storage.run(self._file.truncate, size)

    async def sync(self) -> None:
        """Wait until all bytes are on the disk."""
        await self._storage.run(lambda: os.fsync(self._file.fileno()))

    async def detect(self, size: int, name: str | None) -> str | None:
        """The type of the document, None if it is unknown."""
        return await self._storage.run(detect, self._file, size, name)


def _open_locked(path: Path) -> IO[bytes]:
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise UploadNotFoundError from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UploadLockedError from None
    except OSError:
        file.close()
        raise
    return file


def _append(file: IO[bytes], chunks: Sequence[bytes], hasher: Hasher | None) -> None:
    file.seek(0, os.SEEK_END)
    # Not joined: copying the bytes would cost as much as writing them.
    left = [memoryview(chunk) for chunk in chunks]
    while left:
        written = os.writev(file.fileno(), left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]
    if hasher is not None:
        for chunk in chunks:
            hasher.update(chunk)
