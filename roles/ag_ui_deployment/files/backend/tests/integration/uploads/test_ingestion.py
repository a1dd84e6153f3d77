"""An uploaded document is ingested by its id."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from src.models.permissions import Role
from tests.support.accounts import bearer
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.s3_server import TARGET, S3Server
from tests.support.server import Backend, running
from tests.support.uploads import Uploader, files_in, pdf, uploader

TOOL_PATH = "/mnt/documents"


class ToolServer:
    """A gateway that accepts every call and keeps its arguments."""

    def __init__(self) -> None:
        self.arguments: list[dict[str, Any]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        self.arguments.append(orjson.loads(await reader.readexactly(length))["arguments"])
        answer = {"structuredContent": {"status": "accepted", "job_id": str(uuid4())}}
        body = orjson.dumps(answer | {"content": [], "isError": False})
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        writer.close()


@pytest.fixture
def tool_server() -> ToolServer:
    return ToolServer()


@pytest.fixture
async def backend(
    environment: Environment, tool_server: ToolServer, tmp_path: Path
) -> AsyncIterator[Backend]:
    async with tool_server.running() as url:
        settings = environment.settings(
            LITELLM_URL=url, UPLOADS_DIRECTORY=str(tmp_path), UPLOADS_TOOL_PATH=TOOL_PATH
        )
        async with running(settings) as instance:
            yield instance


@pytest.fixture
async def carol(backend: Backend) -> Uploader:
    return await uploader(backend)


async def ingest(who: Uploader, key: str = "", **body: Any) -> httpx.Response:
    headers = bearer(who.token) | ({"Idempotency-Key": key} if key else {})
    return await who.backend.http.post("/api/ingest", json=body, headers=headers)


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


async def complete(who: Uploader, **values: str) -> str:
    """Upload a document; return its id."""
    path = await who.begun(100, **values)
    assert (await who.send(path, 0, pdf(100))).status_code == 204
    return id_of(path)


async def test_tool_gets_the_path_that_its_server_knows(
    carol: Uploader, tool_server: ToolServer, tmp_path: Path
) -> None:
    upload_id = await complete(carol, filename="../Report.pdf")
    assert (await ingest(carol, upload_id=upload_id)).status_code == 202
    assert (await ingest(carol, upload_id=upload_id, source_name="Q3")).status_code == 202
    (file,) = files_in(tmp_path)
    path = f"{TOOL_PATH}/{file.name}"
    assert tool_server.arguments == [
        {"file_path": path, "source_name": "Report.pdf"},
        {"file_path": path, "source_name": "Q3"},
    ]


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        ({}, "Report.pdf"),
        ({"source_name": "Q3"}, "Q3"),
        ({"file_path": "/data/sharks.pdf", "upload_id": None}, "/data/sharks.pdf"),
    ],
)
async def test_accepted_job_says_at_once_what_it_is_about(
    carol: Uploader, environment: Environment, arguments: dict[str, str | None], subject: str
) -> None:
    """The tool server publishes no event."""
    uploaded = {"upload_id": await complete(carol, filename="Report.pdf")}
    body = {name: value for name, value in (uploaded | arguments).items() if value}
    accepted = (await ingest(carol, **body)).json()
    job = await carol.backend.http.get(accepted["job"], headers=bearer(carol.token))
    assert job.json()["subject"] == subject
    entries: Any = await environment.redis.xrange(environment.stream)
    [(_, event)] = entries
    assert orjson.loads(event[b"data"]) == {"job_type": "ingest", "subject": subject}


@pytest.mark.parametrize("tool_path", ["", TOOL_PATH])
async def test_tool_gets_the_address_in_the_bucket(
    environment: Environment, tool_server: ToolServer, s3: S3Server, tool_path: str
) -> None:
    """Or a path, if its server has the bucket mounted."""
    async with tool_server.running() as url:
        settings = environment.settings(LITELLM_URL=url, UPLOADS_TOOL_PATH=tool_path, **s3.settings)
        async with running(settings) as backend:
            carol = await uploader(backend)
            response = await ingest(carol, upload_id=await complete(carol))
    assert response.status_code == 202
    (name,) = s3.names()
    assert tool_server.arguments == [{"file_path": f"{tool_path or TARGET}/{name}"}]


async def test_tool_may_be_called_by_name(carol: Uploader, tool_server: ToolServer) -> None:
    body = {"arguments": {"upload_id": await complete(carol)}}
    response = await carol.backend.http.post(
        "/api/tools/ingest_doc", json=body, headers=bearer(carol.token)
    )
    assert response.status_code == 202
    assert tool_server.arguments[0]["file_path"].startswith(f"{TOOL_PATH}/")


@pytest.mark.parametrize("body", [{}, {"file_path": "/a", "upload_id": str(uuid4())}])
async def test_exactly_one_document_is_named(carol: Uploader, body: dict[str, str]) -> None:
    (fault,) = check_problem(await ingest(carol, **body), 422, "invalid-request")["errors"]
    assert fault["field"] == "body.upload_id"
    assert fault["message"].endswith("or file_path has to be given, and not both")


async def test_only_complete_uploads_of_the_user_in_the_workspace_are_ingested(
    carol: Uploader, backend: Backend, tool_server: ToolServer
) -> None:
    user = await backend.add_user("dave@shield.test", Role.CONTRIBUTOR)
    await backend.join(user, "green", Role.CONTRIBUTOR)
    dave = Uploader(backend, backend.token_of(user))
    unusable = [
        (carol, id_of(await carol.begun(100)), "default"),
        (carol, str(uuid4()), "default"),
        (dave, await complete(carol), "default"),
        (dave, await complete(dave), "green"),
    ]
    for who, upload_id, workspace in unusable:
        response = await ingest(who, upload_id=upload_id, workspace=workspace)
        (fault,) = check_problem(response, 422, "invalid-request")["errors"]
        assert fault["field"] == "body.upload_id"
        assert fault["message"].startswith("is none of your complete uploads")
    assert (await ingest(carol, upload_id="../x")).status_code == 422
    assert tool_server.arguments == []


async def test_repeated_request_is_answered_after_the_upload_is_deleted(
    carol: Uploader, tool_server: ToolServer
) -> None:
    upload_id = await complete(carol)
    first = await ingest(carol, "key-1", upload_id=upload_id)
    assert (await carol.ask("DELETE", f"/api/uploads/{upload_id}")).status_code == 204
    again = await ingest(carol, "key-1", upload_id=upload_id)
    assert first.json() == again.json()
    assert len(tool_server.arguments) == 1
