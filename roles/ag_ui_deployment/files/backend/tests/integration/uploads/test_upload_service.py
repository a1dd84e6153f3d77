"""Uploads by tus over HTTP, at two instances that share a directory."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from src.models.permissions import Role
from src.services.uploads.directory_storage import DirectoryStorage
from src.web import tus
from tests.support.accounts import bearer, recording
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import Backend, running
from tests.support.uploads import OCTETS, TUS, Uploader, docx, files_in, metadata, pdf, uploader
from tests.support.waiting import until

Instances = tuple[Backend, Backend]


def checksum(content: bytes, algorithm: str = "sha1") -> str:
    digest = hashlib.new(algorithm, content).digest()
    return f"{algorithm} {b64encode(digest).decode()}"


async def test_options_describe_the_server_without_a_login(instances: Instances) -> None:
    for path in ("/api/uploads", f"/api/uploads/{uuid4()}"):
        response = await instances[0].http.options(path)
        assert response.status_code == 204
        assert response.headers["tus-resumable"] == response.headers["tus-version"] == "1.0.0"
        extensions = response.headers["tus-extension"].split(",")
        assert extensions == ["creation", "termination", "checksum", "expiration"]
        assert response.headers["tus-max-size"] == "4000000"
        assert response.headers["tus-checksum-algorithm"] == "sha1,sha256,sha512"


async def test_document_is_stored_and_described(carol: Uploader, tmp_path: Path) -> None:
    content = pdf(3_000_000)
    header = metadata(filename="Über uns.pdf", filetype="application/pdf")
    response = await carol.begin(len(content), filename="Über uns.pdf", filetype="application/pdf")
    path = response.headers["location"]
    assert response.headers["upload-expires"].endswith(" GMT")
    begun = response.json()
    assert (begun["status"], begun["offset"], begun["type"]) == ("uploading", 0, None)

    sent = await carol.send(path, 0, content)
    assert sent.status_code == 204
    assert sent.headers["upload-offset"] == str(len(content))
    assert sent.headers["tus-resumable"] == "1.0.0"

    head = await carol.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["upload-length"] == head.headers["upload-offset"] == str(len(content))
    assert head.headers["upload-metadata"] == header
    complete = await carol.get(path)
    assert (complete["status"], complete["type"], complete["name"]) == (
        "complete",
        "pdf",
        "Über uns.pdf",
    )
    (file,) = files_in(tmp_path)
    assert file.name == f"{UUID(complete['id'])}.pdf"
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o777 == 0o640


async def test_cut_upload_is_resumed_at_the_other_instance(
    carol: Uploader, instances: Instances, tmp_path: Path
) -> None:
    content = pdf(3_000_000)
    path = await carol.begun(len(content))
    writer = await carol.part_of_request(path, 0, content[:1_500_000], len(content))
    (file,) = files_in(tmp_path)
    await until(lambda: file.stat().st_size >= 1_000_000)
    other = carol.at(instances[1])
    check_problem(await other.send(path, 0, content), 423, "upload-locked")
    check_problem(await other.ask("DELETE", path), 423, "upload-locked")
    writer.transport.abort()

    async def is_kept() -> bool:
        return await other.offset(path) == 1_500_000

    await until(is_kept)
    assert (await carol.get(path))["status"] == "uploading"

    async def resumes() -> bool:
        sent = await other.send(path, 1_500_000, content[1_500_000:])
        return sent.status_code == 204

    await until(resumes)
    assert (await carol.get(path))["status"] == "complete"
    (file,) = files_in(tmp_path)
    assert file.read_bytes() == content


async def test_upload_continues_after_a_restart(environment: Environment, tmp_path: Path) -> None:
    settings = environment.settings(UPLOADS_DIRECTORY=str(tmp_path))
    content = pdf(2_000_000)
    async with running(settings) as backend:
        carol = await uploader(backend)
        path = await carol.begun(len(content))
        # Its connection is still open when the instance stops.
        writer = await carol.part_of_request(path, 0, content[:1_200_000], len(content))
        (file,) = files_in(tmp_path)
        await until(lambda: file.stat().st_size >= 1_000_000)
    writer.transport.abort()
    async with running(settings) as backend:
        carol = carol.at(backend)
        offset = await carol.offset(path)
        assert 1_000_000 <= offset <= 1_200_000
        assert (await carol.send(path, offset, content[offset:])).status_code == 204
    (file,) = files_in(tmp_path)
    assert file.read_bytes() == content


async def test_upload_is_completed_although_the_process_ended_before(
    carol: Uploader, instances: Instances, tmp_path: Path
) -> None:
    content = pdf(1000)
    path = await carol.begun(len(content))
    (file,) = files_in(tmp_path)
    # All bytes are on the disk, but nothing says that the upload is complete.
    file.write_bytes(content)
    assert await carol.at(instances[1]).offset(path) == len(content)
    assert (await carol.get(path))["type"] == "pdf"


async def test_upload_is_interrupted_when_the_instance_stops(
    carol: Uploader, instances: Instances, tmp_path: Path
) -> None:
    path = await carol.begun(4_000_000)
    (file,) = files_in(tmp_path)

    async def chunks() -> AsyncIterator[bytes]:
        yield pdf(2_000_000)
        await until(lambda: file.stat().st_size >= 1_000_000)
        instances[0].services.drain()
        for _ in range(20):
            yield b"x" * 50_000

    problem = check_problem(await carol.send(path, 0, chunks()), 503, "upload-interrupted")
    assert "HEAD" in problem["detail"]
    # The first bytes may still have been on their way.
    assert await carol.at(instances[1]).offset(path) >= 1_000_000


async def test_request_without_bytes_ends(
    carol: Uploader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tus, "_PIECE_SECONDS", 0.1)
    path = await carol.begun(1_000)
    writer = await carol.part_of_request(path, 0, pdf(500), 1_000)
    (file,) = files_in(tmp_path)
    await until(lambda: file.stat().st_size == 500)

    async def goes_on() -> bool:
        return (await carol.send(path, 500, b"x" * 500)).status_code == 204

    await until(goes_on)
    writer.close()


async def test_single_bytes_do_not_keep_a_request_open(
    carol: Uploader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tus, "_PIECE_SECONDS", 0.3)
    path = await carol.begun(1_000_000)
    writer = await carol.part_of_request(path, 0, pdf(500), 1_000_000)

    async def send_slowly() -> None:
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    slow = asyncio.create_task(send_slowly())

    async def is_unlocked() -> bool:
        return (await carol.ask("DELETE", path)).status_code == 204

    await until(is_unlocked)
    writer.transport.abort()
    await slow


async def test_number_of_requests_with_bytes_is_limited(
    carol: Uploader, instances: Instances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DirectoryStorage, "max_transfers", 8)
    first, second = await carol.begun(2_000_000), await carol.begun(100)
    writer = await carol.part_of_request(first, 0, pdf(1_500_000), 2_000_000)
    await until(lambda: max(file.stat().st_size for file in files_in(tmp_path)) >= 1_000_000)
    check_problem(await carol.send(second, 0, pdf(100)), 429, "too-many-transfers")
    dave = await uploader(instances[0], "dave")
    assert (await dave.upload(pdf(100))).status_code == 204
    writer.close()

    async def is_admitted() -> bool:
        return (await carol.send(second, 0, pdf(100))).status_code == 204

    await until(is_admitted)


async def test_wrong_offset_is_refused(carol: Uploader) -> None:
    path = await carol.begun(100)
    for offset in (1, 99):
        check_problem(await carol.send(path, offset, b"x"), 409, "upload-offset-mismatch")
    assert (await carol.send(path, 0, pdf(50))).headers["upload-offset"] == "50"
    check_problem(await carol.send(path, 0, b"x"), 409, "upload-offset-mismatch")
    assert await carol.offset(path) == 50


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
async def test_bytes_with_a_wrong_checksum_are_not_kept(carol: Uploader, algorithm: str) -> None:
    content = pdf(200)
    path = await carol.begun(200)
    first, second = content[:120], content[120:]
    sent = await carol.send(path, 0, first, Upload_Checksum=checksum(first, algorithm))
    assert sent.headers["upload-offset"] == "120"
    wrong = await carol.send(path, 120, second, Upload_Checksum=checksum(first, algorithm))
    check_problem(wrong, 460, "checksum-mismatch")
    assert wrong.headers["tus-resumable"] == "1.0.0"
    assert await carol.offset(path) == 120
    sent = await carol.send(path, 120, second, Upload_Checksum=checksum(second, algorithm))
    assert sent.status_code == 204
    assert (await carol.get(path))["status"] == "complete"


async def test_bytes_that_were_never_verified_do_not_count(
    carol: Uploader, environment: Environment, tmp_path: Path
) -> None:
    content = pdf(200)
    path = await carol.begun(200)
    await carol.send(path, 0, content[:100])
    # As if the process had been killed while bytes with a checksum arrived.
    (file,) = files_in(tmp_path)
    file.write_bytes(content[:100] + b"garbage")
    await environment.query("UPDATE uploads SET unverified_from = 100")
    assert await carol.offset(path) == 100
    assert (await carol.get("/api/uploads"))["items"][0]["offset"] == 100
    assert (await carol.send(path, 100, content[100:])).status_code == 204
    (file,) = files_in(tmp_path)
    assert file.read_bytes() == content


async def test_part_with_a_checksum_is_dropped_when_the_client_disconnects(
    carol: Uploader, tmp_path: Path
) -> None:
    path = await carol.begun(3_000_000)
    (file,) = files_in(tmp_path)

    async def chunks() -> AsyncIterator[bytes]:
        yield pdf(2_000_000)
        await until(lambda: file.stat().st_size >= 1_000_000)
        raise ConnectionError("as if the network failed")

    with pytest.raises(ConnectionError):
        await carol.send(path, 0, chunks(), Upload_Checksum=checksum(b"never sent"))
    await until(lambda: file.stat().st_size == 0)
    assert await carol.offset(path) == 0


async def test_more_bytes_than_announced_are_refused(carol: Uploader) -> None:
    path = await carol.begun(100)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 60

    check_problem(await carol.send(path, 0, pdf(101)), 413, "upload-too-long")
    check_problem(await carol.send(path, 0, chunks()), 413, "upload-too-long")
    assert await carol.offset(path) == 0


@pytest.mark.parametrize(
    ("content", "name", "detail"),
    [
        (b"\x7fELF" + bytes(100), "report.pdf", "Its content is of no known type."),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "x", "Its content is of no known type."),
        (b"Gr\xfc\xdfe", "latin-1.txt", "Its content is of no known type."),
        (b"<?xml version='1.0'?><a/>", "x.pdf", "It is xml."),
    ],
)
async def test_refused_type_is_removed(
    environment: Environment, tmp_path: Path, content: bytes, name: str, detail: str
) -> None:
    settings = environment.settings(UPLOADS_DIRECTORY=str(tmp_path), UPLOADS_TYPES=["pdf", "docx"])
    async with running(settings) as backend, recording() as events:
        carol = await uploader(backend)
        path = await carol.begun(len(content), filename=name)
        problem = check_problem(await carol.send(path, 0, content), 415, "document-type-refused")
        assert problem["detail"].startswith(f"{detail} Accepted are: pdf, docx;")
        check_problem(await carol.ask("GET", path), 404, "upload-not-found")
        assert files_in(tmp_path) == []
        assert (await carol.upload(docx())).status_code == 204
    noted = [(event.action, event.outcome) for event in events]
    assert noted == [("upload.complete", "denied"), ("upload.complete", "success")]


class TestLimits:
    async def test_size_of_one(self, carol: Uploader) -> None:
        response = await carol.begin(4_000_001)
        assert check_problem(response, 413, "upload-too-large")["detail"] == (
            "A document may have at most 4000000 bytes here."
        )
        for size in ("0", "-1", "x", str(2**63), "9" * 5000, "1e3"):
            response = await carol.ask("POST", "/api/uploads", headers={"Upload-Length": size})
            check_problem(response, 422, "invalid-request")

    async def test_bytes_of_a_user_and_of_all(self, carol: Uploader, instances: Instances) -> None:
        path = await carol.begun(4_000_000)
        other = carol.at(instances[1])
        await other.begun(2_000_000)
        check_problem(await other.begin(1), 429, "your-uploads-are-full")
        dave = await uploader(instances[1], "dave")
        check_problem(await dave.begin(2_000_001), 507, "uploads-full")
        await dave.begun(2_000_000)
        assert (await other.ask("DELETE", path)).status_code == 204
        await dave.begun(4_000_000)


class TestOwnership:
    async def test_other_users_do_not_see_an_upload(
        self, carol: Uploader, instances: Instances
    ) -> None:
        path = await carol.begun(100)
        for name, role in (("dave", Role.CONTRIBUTOR), ("root", Role.ADMIN)):
            other = await uploader(instances[1], name, role)
            for unknown in (path, f"/api/uploads/{uuid4()}"):
                check_problem(await other.ask("GET", unknown), 404, "upload-not-found")
                assert (await other.ask("HEAD", unknown)).status_code == 404
                check_problem(await other.send(unknown, 0, b"x"), 404, "upload-not-found")
                check_problem(await other.ask("DELETE", unknown), 404, "upload-not-found")
            assert (await other.get("/api/uploads"))["items"] == []
        assert await carol.offset(path) == 0

    async def test_viewers_may_not_upload(self, instances: Instances) -> None:
        victor = await uploader(instances[0], "victor", Role.VIEWER)
        check_problem(await victor.begin(1), 403, "not-permitted")

    async def test_upload_belongs_to_a_workspace(
        self, carol: Uploader, instances: Instances
    ) -> None:
        backend = instances[0]
        user = await backend.add_user("erin@shield.test", Role.VIEWER)
        await backend.join(user, "green", Role.CONTRIBUTOR)
        erin = Uploader(backend, backend.token_of(user))
        begun = await erin.begin(10, workspace="green")
        assert begun.json()["workspace"] == "green"
        check_problem(await erin.begin(10), 403, "not-permitted")
        check_problem(await carol.begin(10, workspace="green"), 404, "no-workspace-of-yours")
        await backend.join(user, "green", Role.VIEWER)
        refused = await erin.send(begun.headers["location"], 0, b"x")
        check_problem(refused, 403, "not-permitted")

    async def test_caller_is_known_before_the_bytes_are_read(self, instances: Instances) -> None:
        forged = Uploader(instances[0], "forged")
        path = f"/api/uploads/{uuid4()}"
        url = instances[0].http.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        sent = bearer("forged") | TUS | OCTETS | {"Host": "x", "Content-Length": "1000000"}
        lines = [f"PATCH {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()
        check_problem(await forged.ask("GET", path), 401, "not-authenticated")


async def test_deleted_upload_leaves_nothing(carol: Uploader, tmp_path: Path) -> None:
    unfinished = await carol.begun(100)
    complete = await carol.begun(100)
    await carol.send(complete, 0, pdf(100))
    async with recording() as events:
        for path in (unfinished, complete):
            assert (await carol.ask("DELETE", path)).status_code == 204
            check_problem(await carol.ask("DELETE", path), 404, "upload-not-found")
    assert [event.action for event in events] == ["upload.delete"] * 2
    assert files_in(tmp_path) == []


async def test_list_has_pages(carol: Uploader) -> None:
    paths = [await carol.begun(10 * number) for number in (1, 2, 3)]
    first = await carol.get("/api/uploads?limit=2")
    second = await carol.get(f"/api/uploads?limit=2&cursor={first['next_cursor']}")
    listed = [item["id"] for page in (first, second) for item in page["items"]]
    assert listed == [path.rpartition("/")[2] for path in reversed(paths)]
    assert second["next_cursor"] is None
    check_problem(await carol.ask("GET", "/api/uploads?cursor=x"), 400, "bad-cursor")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\report.pdf", "report.pdf"),
        ("a\x00b\n\u202efdp.exe", "abfdp.exe"),
        ("<script>.pdf", "<script>.pdf"),
        ("x" * 1000, "x" * 200),
        ("/", None),
    ],
)
async def test_name_is_only_presented(
    carol: Uploader, tmp_path: Path, sent: str, shown: str | None
) -> None:
    path = await carol.begun(100, filename=sent)
    await carol.send(path, 0, pdf(100))
    upload = await carol.get(path)
    assert upload["name"] == shown
    (file,) = files_in(tmp_path)
    assert file.name == f"{upload['id']}.pdf"


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "tus-version"),
        ({"Upload-Metadata": "filename not-base64!"}, 422, "invalid-request"),
        ({"Upload-Metadata": "a YQ==,a YQ=="}, 422, "invalid-request"),
        ({"Upload-Metadata": "a " + "YQ==" * 2000}, 422, "invalid-request"),
        (
            {"Upload-Metadata": metadata(filename="a").replace("YQ==", "/w==")},
            422,
            "invalid-request",
        ),
    ],
)
async def test_malformed_requests(
    carol: Uploader, headers: dict[str, str], status: int, slug: str
) -> None:
    sent = {"Upload-Length": "10"} | headers
    response = await carol.ask("POST", "/api/uploads", headers=sent)
    check_problem(response, status, slug)
    assert response.headers["tus-resumable"] == "1.0.0"
    assert response.headers.get("tus-version") == ("1.0.0" if status == 412 else None)


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        ({"Content-Type": "application/octet-stream"}, 415, "not-octets"),
        ({"Upload-Checksum": "crc32 AAAA"}, 422, "invalid-request"),
        ({"Upload-Checksum": "sha1 AAAA"}, 422, "invalid-request"),
        ({"Trailer": "Upload-Checksum"}, 422, "invalid-request"),
        ({"Upload-Offset": "9" * 30}, 422, "invalid-request"),
        ({"Upload-Offset": "0x0"}, 422, "invalid-request"),
        ({"Upload-Offset": "-1"}, 422, "invalid-request"),
    ],
)
async def test_malformed_bytes(
    carol: Uploader, headers: dict[str, str], status: int, slug: str
) -> None:
    path = await carol.begun(100)
    sent: dict[str, Any] = OCTETS | {"Upload-Offset": "0"} | headers
    check_problem(await carol.ask("PATCH", path, headers=sent, content=b"x"), status, slug)
    assert await carol.offset(path) == 0


async def test_method_may_be_overridden(carol: Uploader) -> None:
    path = await carol.begun(100)
    sent = OCTETS | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    response = await carol.ask("POST", path, headers=sent, content=pdf(100))
    assert response.headers["upload-offset"] == "100"


async def test_document_is_never_served(carol: Uploader, tmp_path: Path) -> None:
    page = b"<!doctype html><script>alert(1)</script>"
    path = await carol.begun(len(page), filename="<script>alert(1)</script>.html")
    assert (await carol.send(path, 0, page)).status_code == 204
    (file,) = files_in(tmp_path)
    for address in (path, f"/api/uploads/{file.name}", f"/{file.name}", str(file), f"{path}/"):
        response = await carol.ask("GET", address, headers={"Accept": "text/html"})
        assert page not in response.content
        assert "html" not in response.headers.get("content-type", "")


async def test_uploads_are_off_without_a_directory(backend: Backend) -> None:
    carol = await uploader(backend)
    for method, path in (
        ("OPTIONS", "/api/uploads"),
        ("GET", "/api/uploads"),
        ("DELETE", f"/api/uploads/{uuid4()}"),
    ):
        problem = check_problem(await carol.ask(method, path), 404, "uploads-disabled")
        assert "UPLOADS_DIRECTORY" in problem["detail"]
    check_problem(await carol.begin(10), 404, "uploads-disabled")
    response = await backend.http.post(
        "/api/ingest", headers=bearer(carol.token), json={"upload_id": str(uuid4())}
    )
    (fault,) = check_problem(response, 422, "invalid-request")["errors"]
    assert fault["field"] == "body.upload_id"
    assert "UPLOADS_DIRECTORY" in fault["message"]


async def test_directory_that_cannot_be_used_is_reported(
    environment: Environment, tmp_path: Path
) -> None:
    settings = environment.settings(UPLOADS_DIRECTORY=str(tmp_path / "missing"))
    async with running(settings) as backend:
        carol = await uploader(backend)
        check_problem(await carol.begin(10), 503, "upload-storage-unavailable")
        assert (await carol.get("/api/uploads"))["items"] == []
