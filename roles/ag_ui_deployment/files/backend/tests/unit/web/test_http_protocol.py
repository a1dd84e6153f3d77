"""Requests that the HTTP parser refuses get a problem document."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from src.utils.sockets import listening_socket
from src.web.http_protocol import HttpProtocol
from tests.support.waiting import until

HOST = b"Host: a.example\r\n"
REFUSED = {
    "a byte above ASCII": b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"PURGEALL / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character": b"GET / HTTP/1.1\r\n" + HOST + b"X-Any: a\x01b\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\r\n\r\n",
    "a chunk without a length": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n"
    ),
}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = listening_socket("127.0.0.1", 0)
    config = uvicorn.Config(
        PlainTextResponse("ok"), http=HttpProtocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving


async def ask(port: int, request: bytes) -> tuple[str, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return status, {name.lower(): value for name, _, value in pairs}, body.encode("latin-1")


@pytest.mark.parametrize("name", REFUSED)
async def test_malformed_request_gets_a_problem_document(port: int, name: str) -> None:
    status, headers, body = await ask(port, REFUSED[name])
    assert status == "HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"
    problem = orjson.loads(body)
    assert problem["type"].endswith(":malformed-request")
    assert problem["request_id"] == headers["x-request-id"]


async def test_request_id_before_the_error_is_kept(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nX-Request-ID: abcdefgh\r\nX-Any: a\x01b\r\n\r\n"
    _, headers, body = await ask(port, request)
    assert headers["x-request-id"] == orjson.loads(body)["request_id"] == "abcdefgh"


async def test_valid_request_is_answered(port: int) -> None:
    request = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    status, _, body = await ask(port, request)
    assert (status, body) == ("HTTP/1.1 200 OK", b"ok")
