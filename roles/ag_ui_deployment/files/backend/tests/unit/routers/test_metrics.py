"""Access to the metrics."""

from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from src.routers import metrics
from src.web import problems

TOKEN = "t" * 32


class _Exposition:
    async def exposition(self) -> bytes:
        return b"ag_ui_streams_open 0\n"


def _with_services(app: ASGIApp, token: str | None) -> ASGIApp:
    settings = SimpleNamespace(METRICS_TOKEN=SecretStr(token) if token else None)
    operations = SimpleNamespace(prometheus=_Exposition())
    services = SimpleNamespace(settings=settings, operations=operations)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"services": services}
        await app(scope, receive, send)

    return call


async def _ask(token: str | None, authorization: str | None) -> httpx.Response:
    app = FastAPI()
    problems.install(app)
    app.include_router(metrics.router)
    sent = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    transport = httpx.ASGITransport(_with_services(app, token))
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        return await client.get("/metrics", headers=sent)


@pytest.mark.parametrize(
    ("token", "authorization"),
    [(TOKEN, f"Bearer {TOKEN}"), (TOKEN, f"bearer  {TOKEN}"), (None, None), (None, "Bearer x")],
)
async def test_valid_or_unset_token_is_accepted(
    token: str | None, authorization: str | None
) -> None:
    answer = await _ask(token, authorization)
    assert answer.status_code == 200
    assert answer.text == "ag_ui_streams_open 0\n"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"],
)
async def test_invalid_token_is_refused(authorization: str | None) -> None:
    answer = await _ask(TOKEN, authorization)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "METRICS_TOKEN" in answer.json()["detail"]
