"""Requests to the application without its services, for routes that need none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from src.main import create_app
from tests.support.builders import settings_of


class _Readiness:
    def __init__(self, reason: str | None) -> None:
        self._reason = reason

    async def not_ready_reason(self) -> str | None:
        return self._reason


@asynccontextmanager
async def asking(
    app: FastAPI | None = None, not_ready: str | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application whose instance is ready, or not ready for this reason."""
    settings = settings_of()
    app = app or create_app(settings)
    operations = SimpleNamespace(readiness=_Readiness(not_ready))
    services = SimpleNamespace(settings=settings, operations=operations)

    async def with_services(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": services}}, receive, send)

    transport = httpx.ASGITransport(with_services)
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        yield client
