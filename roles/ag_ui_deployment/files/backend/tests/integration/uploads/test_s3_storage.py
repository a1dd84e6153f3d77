"""Uploads into a bucket of S3, at two instances."""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from src.models.permissions import Role
from src.repositories import uploads as upload_rows
from src.services.uploads import s3_storage
from src.services.uploads.errors import UploadLockedError
from src.services.uploads.retention import UploadRetention
from src.services.uploads.s3_storage import S3Storage
from tests.support.cli import cli_environment, served
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.s3_server import S3Server
from tests.support.server import Backend, running, two_instances
from tests.support.uploads import Uploader, docx, pdf, uploader
from tests.support.waiting import until

Instances = tuple[Backend, Backend]
PART = 5 * 1024 * 1024
CONTENT = pdf(2 * PART + 1_000_000)
MIDDLE = PART + 1_000_000


@pytest.fixture
async def instances(environment: Environment, s3: S3Server) -> AsyncIterator[Instances]:
    async with two_instances(environment, **s3.settings) as pair:
        yield pair


@pytest.fixture
async def carol(instances: Instances) -> Uploader:
    return await uploader(instances[0])


def storage_of(backend: Backend) -> S3Storage:
    storage = backend.services.uploads.storage
    assert isinstance(storage, S3Storage)
    return storage


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def checksum(content: bytes) -> str:
    return f"sha1 {b64encode(hashlib.sha1(content).digest()).decode()}"  # noqa: S324 - of tus


async def retain(backend: Backend) -> None:
    task = backend.services.tasks["upload_retention"]
    assert isinstance(task, UploadRetention)
    await task.retain_if_alone()


async def check_complete(who: Uploader, path: str, s3: S3Server, content: bytes = CONTENT) -> None:
    upload = await who.get(path)
    assert (upload["status"], upload["type"]) == ("complete", "pdf")
    name = f"{id_of(path)}.pdf"
    assert s3.names() == [name]
    assert s3.content(name) == content


@pytest.mark.parametrize("size", [100, PART - 1, PART, PART + 1, 2 * PART, len(CONTENT)])
async def test_document_becomes_one_object(carol: Uploader, s3: S3Server, size: int) -> None:
    path = await carol.begun(size, filename="../../Report.pdf")
    assert (await carol.send(path, 0, pdf(size))).headers["upload-offset"] == str(size)
    await check_complete(carol, path, s3, pdf(size))


async def test_address_of_a_document_does_not_open_as_a_page(carol: Uploader, s3: S3Server) -> None:
    page = b"<!doctype html><script>alert(1)</script>"
    assert (await carol.upload(page, filename="page.html")).status_code == 204
    (name,) = s3.names()
    stored = s3.get(name)
    assert (stored["ContentType"], stored["ContentDisposition"]) == (
        "application/octet-stream",
        "attachment",
    )


async def test_type_at_the_end_of_a_document_is_found(carol: Uploader, s3: S3Server) -> None:
    """An archive has its list of entries there."""
    assert (await carol.upload(docx())).status_code == 204
    assert [name.partition(".")[2] for name in s3.names()] == ["docx"]


async def test_refused_type_leaves_nothing(carol: Uploader, s3: S3Server) -> None:
    for size in (100, len(CONTENT)):
        sent = await carol.upload(b"\x7fELF" + bytes(size - 4))
        check_problem(sent, 415, "document-type-refused")
        assert s3.names() == []


async def test_document_comes_in_small_pieces(carol: Uploader, s3: S3Server) -> None:
    path = await carol.begun(len(CONTENT))
    step = 1_900_000
    for offset in range(0, len(CONTENT), step):
        piece = CONTENT[offset : offset + step]
        sent = await carol.send(path, offset, piece)
        assert sent.headers["upload-offset"] == str(offset + len(piece))
        assert len(s3.names()) <= 2
    await check_complete(carol, path, s3)


async def test_cut_upload_is_resumed_at_the_other_instance(
    carol: Uploader, instances: Instances, s3: S3Server
) -> None:
    path = await carol.begun(len(CONTENT))
    writer = await carol.part_of_request(path, 0, CONTENT[:MIDDLE], len(CONTENT))
    other = carol.at(instances[1])

    async def offset_is(expected: int) -> bool:
        return await other.offset(path) == expected

    await until(lambda: offset_is(PART))
    check_problem(await other.send(path, PART, CONTENT[PART:]), 423, "upload-locked")
    check_problem(await other.ask("DELETE", path), 423, "upload-locked")
    writer.transport.abort()
    await until(lambda: offset_is(MIDDLE))
    listed = (await other.get("/api/uploads"))["items"]
    assert [item["offset"] for item in listed] == [MIDDLE]

    async def resumes() -> bool:
        return (await other.send(path, MIDDLE, CONTENT[MIDDLE:])).status_code == 204

    await until(resumes)
    await check_complete(carol, path, s3)


async def test_upload_is_resumed_after_its_instance_was_killed(
    environment: Environment, s3: S3Server
) -> None:
    async with running(environment.settings(**s3.settings)) as survivor:
        user = await survivor.add_user("carol@shield.test", Role.CONTRIBUTOR)
        carol = Uploader(survivor, survivor.token_of(user))
        path = await carol.begun(len(CONTENT))
        async with served(cli_environment(environment, **s3.settings)) as (process, http):
            killed = carol.at(Backend(survivor.settings, survivor.services, http))
            writer = await killed.part_of_request(path, 0, CONTENT[:MIDDLE], len(CONTENT))

            async def has_a_part() -> bool:
                return await carol.offset(path) == PART

            await until(has_a_part)
            process.kill()
            await process.wait()
        writer.close()
        check_problem(await carol.send(path, PART, CONTENT[PART:]), 423, "upload-locked")
        # As if the time of the lock had passed.
        await environment.query("UPDATE s3_uploads SET writer_until = now() - interval '1 second'")
        assert (await carol.send(path, PART, CONTENT[PART:])).status_code == 204
        await check_complete(carol, path, s3)


async def test_upload_continues_after_a_restart(environment: Environment, s3: S3Server) -> None:
    settings = environment.settings(**s3.settings)
    async with running(settings) as backend:
        carol = await uploader(backend)
        path = await carol.begun(len(CONTENT))
        writer = await carol.part_of_request(path, 0, CONTENT[:MIDDLE], len(CONTENT))

        async def has_a_part() -> bool:
            return await carol.offset(path) == PART

        await until(has_a_part)
    writer.transport.abort()
    async with running(settings) as backend:
        carol = carol.at(backend)
        offset = await carol.offset(path)
        assert PART <= offset <= MIDDLE
        assert (await carol.send(path, offset, CONTENT[offset:])).status_code == 204
        await check_complete(carol, path, s3)


async def test_lock_is_extended_while_bytes_come(
    carol: Uploader, instances: Instances, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_storage, "_EXTEND_SECONDS", 0.05)
    path = await carol.begun(1_000)
    writer = await carol.part_of_request(path, 0, pdf(100), 1_000)

    async def locked_until() -> Any:
        return (await environment.query("SELECT writer_until FROM s3_uploads"))[0][0]

    async def is_locked() -> bool:
        return await locked_until() is not None

    await until(is_locked)
    first = await locked_until()

    async def is_extended() -> bool:
        return bool(await locked_until() > first)

    await until(is_extended)
    check_problem(await carol.at(instances[1]).send(path, 0, pdf(1_000)), 423, "upload-locked")
    writer.transport.abort()


async def test_request_that_lost_the_lock_changes_nothing(
    carol: Uploader, instances: Instances, environment: Environment
) -> None:
    """Its instance was stopped for longer than the lock lasts, and goes on."""
    path = await carol.begun(len(CONTENT))
    upload_id = UUID(id_of(path))
    async with storage_of(instances[0]).locked(upload_id) as late:
        await late.append(b"x" * 1_000, None)
        await environment.query("UPDATE s3_uploads SET writer_until = now() - interval '1 second'")
        assert (await carol.at(instances[1]).send(path, 0, CONTENT[:MIDDLE])).status_code == 204
        with pytest.raises(UploadLockedError):
            await late.sync()
        with pytest.raises(UploadLockedError):
            await late.append(b"x" * PART, None)
    assert await carol.offset(path) == MIDDLE


async def test_part_that_was_replaced_does_not_become_part_of_a_document(
    carol: Uploader, instances: Instances, environment: Environment
) -> None:
    path = await carol.begun(len(CONTENT))
    upload_id = UUID(id_of(path))
    await carol.send(path, 0, CONTENT[:MIDDLE])
    async with storage_of(instances[0]).locked(upload_id) as late:
        await late.append(b"y", None)
        await environment.query("UPDATE s3_uploads SET writer_until = now() - interval '1 second'")
        sent = await carol.at(instances[1]).send(path, MIDDLE, CONTENT[MIDDLE:-1])
        assert sent.status_code == 204
        with pytest.raises(UploadLockedError):
            # It overwrites the second part before it finds out that it has lost the lock.
            await late.append(b"y" * PART, None)
    sent = await carol.send(path, len(CONTENT) - 1, CONTENT[-1:])
    check_problem(sent, 503, "upload-storage-unavailable")
    assert (await carol.get("/api/uploads"))["items"][0]["status"] == "uploading"


async def test_bytes_with_a_wrong_checksum_are_not_kept(carol: Uploader, s3: S3Server) -> None:
    path = await carol.begun(len(CONTENT))
    first, second = CONTENT[:1_000_000], CONTENT[1_000_000:]
    assert (await carol.send(path, 0, first, Upload_Checksum=checksum(first))).status_code == 204
    wrong = await carol.send(path, len(first), second, Upload_Checksum=checksum(first))
    check_problem(wrong, 460, "checksum-mismatch")
    assert await carol.offset(path) == len(first)
    sent = await carol.send(path, len(first), second, Upload_Checksum=checksum(second))
    assert sent.status_code == 204
    await check_complete(carol, path, s3)


async def test_more_bytes_than_announced_are_not_kept(carol: Uploader, s3: S3Server) -> None:
    path = await carol.begun(len(CONTENT))
    await carol.send(path, 0, CONTENT[:1_000])

    async def too_many() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(PART)

    check_problem(await carol.send(path, 1_000, too_many()), 413, "upload-too-long")
    assert await carol.offset(path) == 1_000
    assert (await carol.send(path, 1_000, CONTENT[1_000:])).status_code == 204
    await check_complete(carol, path, s3)


async def test_upload_is_completed_although_the_process_ended_before(
    carol: Uploader, instances: Instances, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (pdf(100), CONTENT):
        path = await carol.begun(len(content))
        with monkeypatch.context() as patch:
            # All bytes are one object, but nothing says that the upload is complete.
            patch.setattr(upload_rows, "complete", lambda *_, **__: 1 / 0)
            assert (await carol.send(path, 0, content)).status_code == 500
        await check_complete(carol.at(instances[1]), path, s3, content)
        await carol.ask("DELETE", path)


async def test_deleted_and_expired_uploads_leave_nothing(
    carol: Uploader, instances: Instances, environment: Environment, s3: S3Server
) -> None:
    for is_deleted in (True, False):
        unfinished, complete = [await carol.begun(len(CONTENT)) for _ in range(2)]
        await carol.send(unfinished, 0, CONTENT[:MIDDLE])
        await carol.send(complete, 0, CONTENT)
        assert len(s3.names()) == 3
        if is_deleted:
            for path in (unfinished, complete):
                assert (await carol.ask("DELETE", path)).status_code == 204
        else:
            await environment.query("UPDATE uploads SET expires_at = now() - interval '1 second'")
            await retain(instances[1])
        assert s3.names() == []


async def test_old_objects_without_an_upload_are_deleted(
    carol: Uploader, instances: Instances, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carol.upload(pdf(100))
    (kept,) = s3.names()
    s3.put("notes.txt")
    s3.put(f"{uuid4()}.pdf")
    await retain(instances[0])
    assert len(s3.names()) == 3
    s3.begin_parts(f"{uuid4()}.part")
    monkeypatch.setattr("src.services.uploads.retention._ORPHANED_AFTER_SECONDS", -3600.0)
    await retain(instances[0])
    assert s3.names() == sorted([kept, "notes.txt"])


async def test_server_that_refuses_the_key_is_reported(carol: Uploader, s3: S3Server) -> None:
    path = await carol.begun(100)
    s3.refuse_logins()
    check_problem(await carol.send(path, 0, pdf(100)), 503, "upload-storage-unavailable")
    assert await carol.offset(path) == 0


async def test_uploads_use_a_bounded_part_of_the_memory(carol: Uploader) -> None:
    """Each request that sends bytes has one part in memory, and a user few requests."""
    limit = S3Storage.max_transfers // 8
    (last, *paths) = [await carol.begun(1_000) for _ in range(limit + 1)]
    writers = [await carol.part_of_request(path, 0, pdf(100), 1_000) for path in paths]

    async def is_refused() -> bool:
        if (await carol.send(last, 0, b"")).status_code == 429:
            return True
        # Such a request may have been in the way of one of the others, which was refused then.
        path = await carol.begun(1_000)
        writers.append(await carol.part_of_request(path, 0, pdf(100), 1_000))
        return False

    await until(is_refused)
    for writer in writers:
        writer.transport.abort()
