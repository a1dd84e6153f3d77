"""Access to the metrics."""

from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from src.routers import metrics
from src.web import problems

TOKEN = "t" * 32


class _Exposition:
    async def exposition(self) -> bytes:
        return b"ag_ui_streams_open 0\n"


def _with_services(app: ASGIApp, *tokens: str) -> ASGIApp:
    settings = SimpleNamespace(metrics_tokens=tokens)
    operations = SimpleNamespace(prometheus=_Exposition())
    services = SimpleNamespace(settings=settings, operations=operations)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"services": services}
        await app(scope, receive, send)

    return call


async def _ask(tokens: tuple[str, ...], authorization: str | None) -> httpx.Response:
    app = FastAPI()
    problems.install(app)
    app.include_router(metrics.router)
    sent = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    transport = httpx.ASGITransport(_with_services(app, *tokens))
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        return await client.get("/metrics", headers=sent)


@pytest.mark.parametrize(
    ("tokens", "authorization"),
    [
        ((TOKEN,), f"Bearer {TOKEN}"),
        ((TOKEN,), f"bearer  {TOKEN}"),
        (("n" * 32, TOKEN), f"Bearer {TOKEN}"),
        ((), None),
        ((), "Bearer x"),
    ],
)
async def test_valid_or_unset_token_is_accepted(
    tokens: tuple[str, ...], authorization: str | None
) -> None:
    answer = await _ask(tokens, authorization)
    assert answer.status_code == 200
    assert answer.text == "ag_ui_streams_open 0\n"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"],
)
async def test_invalid_token_is_refused(authorization: str | None) -> None:
    answer = await _ask((TOKEN, "n" * 32), authorization)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "METRICS_TOKEN" in answer.json()["detail"]
