"""Bodies are limited before they are parsed, and read only from authorised clients."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
import pytest
from fastapi.routing import iter_route_contexts

from src.main import create_app
from src.models.permissions import Role
from src.utils.large_bodies import LargeBodies
from src.web import api_route
from src.web.api_route import ApiRoute
from src.web.route_rules import rules_of
from tests.support.accounts import bearer
from tests.support.problems import check_problem
from tests.support.server import Backend
from tests.support.waiting import until

JSON = {"Content-Type": "application/json"}
LARGE = 200_000


class RawRequest:
    """A request of which the test controls every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """Return the status and the problem document."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(
            int(line.split(":")[1])
            for line in head.splitlines()
            if line.lower().startswith("content-length:")
        )
        return int(head.split()[1]), orjson.loads(await self._reader.readexactly(length))


@asynccontextmanager
async def request(
    backend: Backend, path: str, length: int | None, headers: dict[str, str], method: str = "POST"
) -> AsyncIterator[RawRequest]:
    """Send the head of a request; without a length the body is chunked."""
    url = backend.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {url.host}:{url.port}", size]
    lines += [f"{name}: {value}" for name, value in (JSON | headers).items()]
    raw = RawRequest(reader, writer)
    try:
        await raw.send("\r\n".join([*lines, "", ""]).encode())
        yield raw
    finally:
        writer.close()


async def test_unauthenticated_request_is_refused_before_its_body(backend: Backend) -> None:
    app = create_app(backend.settings)
    with_body = {
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        if getattr(route, "body_field", None) is not None
    }
    rules = [rule for rule in rules_of(app) if (rule.method, rule.path) in with_body]
    asking = [rule for rule in rules if rule.needs_login and rule.path != "/auth/logout"]
    assert len(asking) > 10
    for rule in asking:
        path = re.sub(r"\{\w+\}", "x", rule.path)
        for headers in ({}, bearer("forged")):
            async with request(backend, path, 1000, headers, rule.method) as raw:
                status, problem = await raw.answer()
            assert (status, problem["type"]) == (401, "urn:shield-ag-ui:problem:not-authenticated")


async def test_every_route_with_a_body_is_an_api_route(backend: Backend) -> None:
    routes = list(iter_route_contexts(create_app(backend.settings).routes))
    with_body = [route for route in routes if getattr(route, "body_field", None) is not None]
    assert len(with_body) > 20
    assert all(isinstance(route.original_route, ApiRoute) for route in with_body)


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/auth/logout", "/auth/token"])
async def test_public_routes_have_a_body_limit_of_64_kib(backend: Backend, path: str) -> None:
    async with request(backend, path, 65_537, {}) as raw:
        status, problem = await raw.answer()
    assert (status, problem["detail"]) == (413, "A request body may have at most 65536 bytes here.")
    answer = await backend.http.post(path, content=b" " * 65_536, headers=JSON)
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b'{"a":' * 100, "nests deeper than 64 levels"),
        (b'{"a":[' + b"1," * 30_000, "has more than 20000 values"),
    ],
)
async def test_body_is_refused_at_the_first_byte_beyond_a_limit(
    backend: Backend, token: str, sent: bytes, message: str
) -> None:
    for path, headers in (("/auth/login", {}), ("/api/query", bearer(token))):
        async with request(backend, path, None, headers) as raw:
            for start in range(0, len(sent), 60_000):
                piece = sent[start : start + 60_000]
                await raw.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            # The last chunk is never sent.
            status, problem = await raw.answer()
        if status == 413:
            assert path == "/auth/login"
            continue
        assert status == 422
        assert problem["errors"] == [{"field": "body", "message": message}]


@pytest.mark.parametrize(
    ("text", "position"), [(b'{"text": NaN}', 9), (b'{"text": "\\ud800"}', 10), (b'{"text": ', 9)]
)
async def test_json_errors_have_a_position(
    backend: Backend, token: str, text: bytes, position: int
) -> None:
    headers = JSON | bearer(token)
    answer = await backend.http.post("/api/query", content=text, headers=headers)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "body"
    assert error["message"].startswith("is not valid JSON: ")
    assert error["message"].endswith(f"at position {position}")


@asynccontextmanager
async def half_a_body(backend: Backend, token: str) -> AsyncIterator[RawRequest]:
    """Send enough of a large body to occupy a slot."""
    async with request(backend, "/agent", LARGE, bearer(token)) as raw:
        await raw.send(b" " * 1000)
        yield raw


class CountedBodies(LargeBodies):
    """Counts the slots in use."""

    used = 0

    @asynccontextmanager
    async def slot(self, user_id: UUID) -> AsyncIterator[None]:
        async with super().slot(user_id):
            self.used += 1
            try:
                yield
            finally:
                self.used -= 1


class TestLargeBodies:
    @pytest.fixture(autouse=True)
    def bodies(self, backend: Backend) -> CountedBodies:
        """Slots for two bodies, with a short wait."""
        bodies = CountedBodies(max_slots=2, wait_seconds=0.05)
        object.__setattr__(backend.services, "large_bodies", bodies)
        return bodies

    async def test_one_body_per_user_at_a_time(
        self, backend: Backend, bodies: CountedBodies, token: str
    ) -> None:
        body = orjson.dumps({"query": "x", "padding": "x" * LARGE})
        headers = JSON | bearer(token)
        async with half_a_body(backend, token):
            await until(lambda: bodies.used == 1)
            answer = await backend.http.post("/api/query", content=body, headers=headers)
            assert answer.status_code == 429
            assert answer.json()["type"].endswith(":too-many-large-bodies")
            assert answer.headers["retry-after"]
            # Small ones do not wait.
            answer = await backend.http.post("/api/query", content=b"{}", headers=headers)
            assert answer.status_code == 422
        await until(lambda: bodies.used == 0)
        answer = await backend.http.post("/api/query", content=body, headers=headers)
        assert answer.status_code == 422

    async def test_limited_number_of_bodies_at_a_time(
        self, backend: Backend, bodies: CountedBodies, token: str
    ) -> None:
        others = [
            backend.token_of(await backend.add_user(f"{name}@shield.test", Role.CONTRIBUTOR))
            for name in ("bob", "carol")
        ]
        async with half_a_body(backend, others[0]), half_a_body(backend, others[1]):
            await until(lambda: bodies.used == 2)
            async with request(backend, "/agent", LARGE, bearer(token)) as raw:
                status, problem = await raw.answer()
            assert (status, problem["type"].rpartition(":")[2]) == (503, "busy-with-large-bodies")

    async def test_stalled_body_releases_its_slot(
        self,
        backend: Backend,
        bodies: CountedBodies,
        token: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(api_route, "_LARGE_BODY_SECONDS", 0.1)
        async with half_a_body(backend, token) as raw:
            status, problem = await raw.answer()
        assert (status, problem["type"].rpartition(":")[2]) == (408, "body-too-slow")
        await until(lambda: bodies.used == 0)


async def test_number_of_form_fields_is_limited(backend: Backend) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    form = b"username=a&password=b" + b"&x=1" * 1000
    answer = await backend.http.post("/auth/token", content=form, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":invalid-request")


@pytest.mark.parametrize("announced", [True, False])
async def test_body_above_the_limit_is_refused_early(backend: Backend, *, announced: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(1600):
            yield b"x" * 65_536

    headers = {"Content-Type": "application/json"}
    if announced:
        headers["Content-Length"] = str(1600 * 65_536)
    answer = await backend.http.post("/auth/login", content=body(), headers=headers)
    check_problem(answer, 413, "body-too-large")
