"""The bytes of uploads, in a directory that instances share.

A file has the id of its upload as name: `ID.part` until all bytes have arrived, then `ID` and the
suffix of its type. Whoever writes to it or deletes it holds a lock of the file system (flock), which
ends with the process and, on file systems such as NFS 4 and CephFS, excludes other hosts too.
"""

import errno
import fcntl
import mmap
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.services.uploads.document_types import detect
from src.services.uploads.errors import (
    UploadLockedError,
    UploadNotFoundError,
    UploadsFullError,
    UploadStorageError,
)
from src.services.uploads.storage import Hasher, UploadStorage
from src.utils.errors import DomainError

# The group reads, for the tools' server.
_FILE_MODE = 0o640
_PART = ".part"
_BLOCK_BYTES = 1024 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class DirectoryStorage(UploadStorage):
    threads = 4
    max_transfers = 64
    failures = (OSError,)

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory}/")
        self._directory = directory

    async def create(self, session: AsyncSession, upload_id: UUID) -> None:  # noqa: ARG002
        await self.run(self._create, upload_id)

    async def sizes(self, ids: Iterable[UUID]) -> dict[UUID, int]:
        return await self.run(self._sizes, list(ids))

    @asynccontextmanager
    async def locked(self, upload_id: UUID) -> AsyncIterator["LockedFile"]:
        file = await self.run(_open_locked, self._part(upload_id))
        try:
            yield LockedFile(self, file)
        finally:
            await self.run(file.close)

    async def publish(self, upload_id: UUID, type_: str) -> bool:
        return await self.run(self._publish, upload_id, type_)

    async def remove(self, upload_id: UUID) -> None:
        await self.run(self._remove, upload_id)

    async def older_than(self, seconds: float) -> set[UUID]:
        return await self.run(self._older_than, seconds)

    def _domain_error(self, error: Exception) -> DomainError:
        is_full = isinstance(error, OSError) and error.errno in _NO_ROOM
        return UploadsFullError() if is_full else UploadStorageError()

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
    """The open file of an incomplete upload, which no other request can write to.

    Bytes are collected in blocks. A whole block goes to the disk without a copy in the page cache: the
    copy would cost more than everything else, and displace what is read again.
    """

    def __init__(self, storage: DirectoryStorage, file: IO[bytes]) -> None:
        self._storage = storage
        self._file = file
        # Begins at a page of the memory, as direct writes require.
        self._block = mmap.mmap(-1, _BLOCK_BYTES)
        self._filled = 0
        # Where the block begins in the file.
        self._start = os.fstat(file.fileno()).st_size
        self._is_direct = False
        self._may_be_direct = True

    async def size(self) -> int:
        return await self._storage.run(lambda: os.fstat(self._file.fileno()).st_size)

    async def append(self, chunk: bytes, hasher: Hasher | None) -> None:
        if hasher is not None:
            await self._storage.run(hasher.update, chunk)
        left = memoryview(chunk)
        while left:
            # Blocks end where the next whole one begins.
            room = _BLOCK_BYTES - (self._start + self._filled) % _BLOCK_BYTES
            taken = left[:room]
            # Copied at once, while the bytes are in the cache of the processor.
            self._block[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            left = left[room:]
            if len(taken) == room:
                await self._storage.run(self._write)

    async def truncate(self, size: int) -> None:
        self._start, self._filled = size, 0
        await self._storage.run(self._file.truncate, size)

    async def sync(self) -> None:
        await self._storage.run(self._sync)

    async def detect(self, size: int, name: str | None) -> str | None:
        return await self._storage.run(detect, self._file, size, name)

    def _sync(self) -> None:
        self._write()
        self._set_direct(wanted=False)
        os.fsync(self._file.fileno())

    def _write(self) -> None:
        self._set_direct(wanted=self._filled == _BLOCK_BYTES)
        written = 0
        while written < self._filled:
            left = memoryview(self._block)[written : self._filled]
            try:
                written += os.pwrite(self._file.fileno(), left, self._start + written)
            except OSError as error:
                if not self._is_direct or error.errno != errno.EINVAL:
                    raise
                self._may_be_direct = False
                self._set_direct(wanted=False)
        self._start += self._filled
        self._filled = 0

    def _set_direct(self, *, wanted: bool) -> None:
        wanted = wanted and self._may_be_direct
        if wanted == self._is_direct:
            return
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL) & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags)
            self._is_direct = wanted
        except OSError:
            # The file system has no direct writes.
            self._may_be_direct = False


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
