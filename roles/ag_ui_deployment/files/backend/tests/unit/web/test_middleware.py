"""Which clients are trusted to name the original address of a request."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from src.web.middleware import (
    Cors,
    ProxyHeaders,
    ReadinessGate,
    RequestContext,
    UnexpectedErrors,
)

KEY = "k" * 32
FORWARDED = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}


async def _echo(request: Request) -> JSONResponse:
    assert request.client
    return JSONResponse(
        {
            "client": request.client.host,
            "scheme": request.url.scheme,
            "headers": sorted(request.headers),
        }
    )


async def _ask(keys: list[str], headers: list[tuple[str, str]], came_from: str) -> dict[str, Any]:
    app = Starlette(routes=[Route("/", _echo)])
    guarded = ProxyHeaders(app, ["127.0.0.1", "10.0.0.0/8"], keys)
    transport = httpx.ASGITransport(guarded, client=(came_from, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        answer = await client.get("/", headers=[*FORWARDED.items(), *headers])
    echoed: dict[str, Any] = answer.json()
    return echoed


@pytest.mark.parametrize(
    ("key", "shown", "came_from", "client"),
    [
        # A proxy.
        (KEY, [KEY], "127.0.0.1", "192.0.2.7"),
        (KEY, [KEY], "10.1.2.3", "192.0.2.7"),
        # A user of the proxy's host.
        (KEY, [], "127.0.0.1", "127.0.0.1"),
        (KEY, ["x" * 32], "127.0.0.1", "127.0.0.1"),
        (KEY, [KEY[:-1]], "127.0.0.1", "127.0.0.1"),
        (KEY, [KEY, KEY], "127.0.0.1", "127.0.0.1"),
        (KEY, [""], "127.0.0.1", "127.0.0.1"),
        # Another host with a stolen key.
        (KEY, [KEY], "198.51.100.1", "198.51.100.1"),
        # A site without a key.
        (None, [], "127.0.0.1", "192.0.2.7"),
        (None, [KEY], "198.51.100.1", "198.51.100.1"),
    ],
)
async def test_forwarded_headers_need_a_trusted_proxy_with_the_key(
    key: str | None, shown: list[str], came_from: str, client: str
) -> None:
    headers = [("X-AG-UI-Proxy-Key", value) for value in shown]
    echoed = await _ask([key] if key else [], headers, came_from)
    assert echoed["client"] == client
    assert echoed["scheme"] == ("https" if client == "192.0.2.7" else "http")
    # The application behind the middleware does not see the key.
    assert "x-ag-ui-proxy-key" not in echoed["headers"]


@pytest.mark.parametrize(("shown", "client"), [("n" * 32, "192.0.2.7"), ("x" * 32, "127.0.0.1")])
async def test_each_of_several_proxy_keys_is_accepted(shown: str, client: str) -> None:
    echoed = await _ask([KEY, "n" * 32], [("X-AG-UI-Proxy-Key", shown)], "127.0.0.1")
    assert echoed["client"] == client


async def test_unexpected_error_has_cors_headers() -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("boom")

    origin = "https://page.example"
    app = RequestContext(Cors(UnexpectedErrors(broken), origins=[origin]))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        answer = await client.get("/", headers={"Origin": origin})
    assert answer.status_code == 500
    assert answer.json()["type"].endswith(":internal-error")
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["x-request-id"]


class _Readiness:
    """A readiness service whose answer the test sets."""

    def __init__(self) -> None:
        self.reason: str | None = "the database schema is not this release's"
        self.questions = 0

    async def not_ready_reason(self) -> str | None:
        self.questions += 1
        return self.reason


async def test_instance_answers_only_health_checks_until_it_is_ready() -> None:
    async def answer(_request: Request) -> JSONResponse:
        return JSONResponse({})

    paths = ("/api/jobs", "/health", "/health/ready", "/metrics")
    gate = ReadinessGate(Starlette(routes=[Route(path, answer) for path in paths]))
    readiness = _Readiness()
    services = SimpleNamespace(operations=SimpleNamespace(readiness=readiness))

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await gate({**scope, "state": {"services": services}}, receive, send)

    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        statuses = {path: (await client.get(path)).status_code for path in paths}
        assert statuses == {"/api/jobs": 502, "/health": 200, "/health/ready": 200, "/metrics": 200}
        readiness.reason = None
        assert (await client.get("/api/jobs")).status_code == 200
        # While it drains it finishes the requests that have reached it.
        readiness.reason = "draining"
        asked = readiness.questions
        assert (await client.get("/api/jobs")).status_code == 200
        assert readiness.questions == asked
