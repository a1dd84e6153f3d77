"""The official tus client uploads documents."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.official_client import NODE, TESTS
from tests.support.server import Backend
from tests.support.uploads import Uploader, files_in, pdf

Instances = tuple[Backend, Backend]
CONTENT = pdf(3_500_000)
PROGRAM = TESTS / "upload_client" / "upload.mjs"


async def upload(who: Uploader, file: Path, instances: Instances, **options: Any) -> list[Any]:
    """Upload a file with the client, see upload.mjs; return what it prints."""
    asked = {
        "file": str(file),
        "addresses": [str(instance.http.base_url).rstrip("/") for instance in instances],
        "token": who.token,
        "metadata": {"filename": file.name, "filetype": "application/pdf"},
        **options,
    }
    node = await asyncio.create_subprocess_exec(
        *(NODE, PROGRAM, json.dumps(asked)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await node.communicate()
    assert (node.returncode, errors) == (0, b"")
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "Jahresbericht ä.pdf"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "picture.pdf"
    path.write_bytes(bytes(100))
    return path


async def test_document_is_uploaded_in_one_request(
    carol: Uploader, instances: Instances, document: Path, tmp_path: Path
) -> None:
    lines = await upload(carol, document, instances, chunkSize=10_000_000)
    assert [line["asked"] for line in lines[:-1]] == ["POST", "PATCH"]
    (file,) = files_in(tmp_path)
    assert file.read_bytes() == CONTENT
    (listed,) = (await carol.get("/api/uploads"))["items"]
    assert (listed["name"], listed["status"]) == (document.name, "complete")


async def test_cut_upload_goes_on_at_the_other_instance(
    carol: Uploader, instances: Instances, document: Path, tmp_path: Path
) -> None:
    lines = await upload(carol, document, instances, cutAfter=1_000_000)
    (cut,) = [line for line in lines if "cut" in line]
    resumed = lines[lines.index(cut) + 1 :]
    assert [line["asked"] for line in resumed[:-1]][:2] == ["HEAD", "PATCH"]
    assert "status" not in resumed[-1]
    (file,) = files_in(tmp_path)
    assert file.read_bytes() == CONTENT


async def test_refusal_reaches_the_client(
    carol: Uploader, instances: Instances, picture: Path, tmp_path: Path
) -> None:
    refused = (await upload(carol, picture, instances))[-1]
    assert refused["status"] == 415
    assert json.loads(refused["body"])["type"].endswith(":document-type-refused")
    assert files_in(tmp_path) == []
