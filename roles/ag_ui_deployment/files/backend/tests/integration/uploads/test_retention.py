"""Expired uploads and files without an upload are deleted."""

import os
import time
from pathlib import Path
from uuid import uuid4

from src.services.uploads.retention import UploadRetention
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import Backend
from tests.support.uploads import Uploader, files_in, pdf
from tests.support.waiting import until

Instances = tuple[Backend, Backend]


def retention_of(backend: Backend) -> UploadRetention:
    task = backend.services.tasks["upload_retention"]
    assert isinstance(task, UploadRetention)
    return task


async def expire(environment: Environment, path: str) -> None:
    upload_id = path.rpartition("/")[2]
    await environment.query(
        "UPDATE uploads SET expires_at = now() - interval '1 second' WHERE id = $1::uuid", upload_id
    )


async def test_expired_uploads_are_deleted_and_others_stay(
    carol: Uploader, instances: Instances, environment: Environment, tmp_path: Path
) -> None:
    paths = [await carol.begun(100) for _ in range(4)]
    unfinished, complete = paths[:2], paths[2:]
    for path in complete:
        await carol.send(path, 0, pdf(100))
    for path in (unfinished[0], complete[0]):
        await expire(environment, path)
        check_problem(await carol.ask("GET", path), 404, "upload-not-found")
    assert len((await carol.get("/api/uploads"))["items"]) == 2
    await retention_of(instances[1]).retain_if_alone()
    names = {path.rpartition("/")[2] for path in (unfinished[1], complete[1])}
    assert {file.name.partition(".")[0] for file in files_in(tmp_path)} == names
    assert len(await environment.query("SELECT FROM uploads")) == 2


async def test_upload_that_is_being_received_stays(
    carol: Uploader, instances: Instances, environment: Environment, tmp_path: Path
) -> None:
    content = pdf(3_000_000)
    path = await carol.begun(len(content))
    writer = await carol.part_of_request(path, 0, content[:1_500_000], len(content))
    (file,) = files_in(tmp_path)
    await until(lambda: file.stat().st_size >= 1_000_000)
    await expire(environment, path)
    await retention_of(instances[1]).retain_if_alone()
    writer.write(content[1_500_000:])

    async def is_complete() -> bool:
        response = await carol.ask("GET", path)
        return response.status_code == 200 and response.json()["status"] == "complete"

    await until(is_complete)
    writer.close()


async def test_each_request_with_bytes_extends_the_time(
    carol: Uploader, environment: Environment
) -> None:
    path = await carol.begun(100)
    await environment.query("UPDATE uploads SET expires_at = now() + interval '1 minute'")
    await carol.send(path, 0, pdf(50))
    query = "SELECT extract(epoch FROM expires_at - now())::int FROM uploads"
    assert (await environment.query(query))[0][0] > 23 * 3600


async def test_old_files_without_an_upload_are_deleted(
    carol: Uploader, instances: Instances, tmp_path: Path
) -> None:
    await carol.begun(100)
    (kept,) = files_in(tmp_path)
    names = [f"{uuid4()}.part", f"{uuid4()}.pdf", "notes.txt"]
    recent = tmp_path / f"{uuid4()}.part"
    for path in (recent, *(tmp_path / name for name in names)):
        path.write_bytes(b"x")
    hours_ago = time.time() - 7200
    for path in (kept, *(tmp_path / name for name in names)):
        os.utime(path, (hours_ago, hours_ago))
    await retention_of(instances[0]).retain_if_alone()
    assert set(files_in(tmp_path)) == {kept, recent, tmp_path / "notes.txt"}


async def test_files_of_a_deleted_account_are_deleted(
    carol: Uploader, instances: Instances, environment: Environment, tmp_path: Path
) -> None:
    await carol.begun(100)
    await environment.query("DELETE FROM users")
    (file,) = files_in(tmp_path)
    os.utime(file, (0, 0))
    await retention_of(instances[0]).retain_if_alone()
    assert files_in(tmp_path) == []
