"""Files of uploads: their lock, and errors of the file system."""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from src.services.uploads.directory_storage import DirectoryStorage
from src.services.uploads.errors import (
    UploadLockedError,
    UploadNotFoundError,
    UploadsFullError,
    UploadStorageError,
)

MEBIBYTE = 1024 * 1024


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[DirectoryStorage]:
    one = DirectoryStorage(tmp_path)
    yield one
    one.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[DirectoryStorage]:
    """The storage of another instance."""
    one = DirectoryStorage(tmp_path)
    yield one
    one.close()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, UploadsFullError),
        (errno.EDQUOT, UploadsFullError),
        (errno.EACCES, UploadStorageError),
        (errno.EIO, UploadStorageError),
    ],
)
async def test_errors_of_the_file_system_are_told_apart(
    storage: DirectoryStorage, number: int, expected: type[Exception]
) -> None:
    def fail() -> None:
        raise OSError(number, "as the file system says")

    with pytest.raises(UploadStorageError) as caught:
        await storage.run(fail)
    assert type(caught.value) is expected


async def test_lock_excludes_other_instances_until_it_is_released(
    storage: DirectoryStorage, other: DirectoryStorage
) -> None:
    upload_id = uuid4()
    await storage.create(AsyncSession(), upload_id)
    async with storage.locked(upload_id) as file:
        await file.append(b"abc", None)
        await file.sync()
        with pytest.raises(UploadLockedError):
            async with other.locked(upload_id):
                pass
    async with other.locked(upload_id) as file:
        assert await file.size() == 3


async def test_missing_file_is_not_made(storage: DirectoryStorage, tmp_path: Path) -> None:
    with pytest.raises(UploadNotFoundError):
        async with storage.locked(uuid4()):
            pass
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a local directory


async def test_cancelled_caller_waits_for_the_file_system(storage: DirectoryStorage) -> None:
    """The file would otherwise be closed while a thread writes to it."""
    began, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        began.set()
        goes_on.wait(10)
        ended.set()

    task = asyncio.create_task(storage.run(write))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_final_name_is_given_once(
    storage: DirectoryStorage, other: DirectoryStorage, tmp_path: Path
) -> None:
    upload_id = uuid4()
    await storage.create(AsyncSession(), upload_id)
    assert await storage.publish(upload_id, "markdown")
    assert await other.publish(upload_id, "markdown")
    assert [path.name for path in tmp_path.iterdir()] == [f"{upload_id}.md"]  # noqa: ASYNC240 - a local directory
    await storage.remove(upload_id)
    assert not await other.publish(upload_id, "markdown")


@pytest.mark.parametrize("has_direct_writes", [True, False])
async def test_bytes_in_pieces_of_any_size_are_kept_in_order(
    storage: DirectoryStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_direct_writes: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Also on file systems that refuse writes past the page cache."""
    pwrite = os.pwrite

    def refuse_direct(file: int, content: bytes, offset: int) -> int:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "as the file system says")
        return pwrite(file, content, offset)

    if not has_direct_writes:
        monkeypatch.setattr(os, "pwrite", refuse_direct)
    upload_id = uuid4()
    await storage.create(AsyncSession(), upload_id)
    expected = b""
    random = Random(7)
    for sizes in ((100,), (MEBIBYTE - 100, MEBIBYTE, 1), (3 * MEBIBYTE,), (1_500_000, 0, 700_000)):
        async with storage.locked(upload_id) as file:
            assert await file.size() == len(expected)
            hasher, before = sha256(expected), len(expected)
            for size in sizes:
                content = random.randbytes(size)
                expected += content
                await file.append(content[:7], hasher)
                await file.append(content[7:], hasher)
            await file.sync()
            assert hasher.digest() == sha256(expected).digest()
            assert (tmp_path / f"{upload_id}.part").read_bytes() == expected
            await file.append(b"x" * 2_000_000, None)
            await file.truncate(before)
            await file.append(expected[before:], None)
            await file.sync()
    assert (tmp_path / f"{upload_id}.part").read_bytes() == expected
    assert await storage.sizes([upload_id]) == {upload_id: len(expected)}
