"""What tests do with accounts over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import httpx

from src.services.audit_logger import AuditEvent, AuditLogger
from tests.support.server import PASSWORD, Backend


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask_login(
    backend: Backend, email: str, password: str = PASSWORD, **second_factor: str
) -> httpx.Response:
    body = {"email": email, "password": password, **second_factor}
    return await backend.http.post("/auth/login", json=body)


async def login(
    backend: Backend, email: str, password: str = PASSWORD, **second_factor: str
) -> dict[str, Any]:
    """The tokens of a new session."""
    response = await ask_login(backend, email, password, **second_factor)
    assert response.status_code == 200, response.text
    tokens: dict[str, Any] = response.json()
    return tokens


async def is_in(backend: Backend, tokens: dict[str, Any]) -> bool:
    """Whether the access token is taken."""
    response = await backend.http.get("/auth/me", headers=bearer(tokens["access_token"]))
    assert response.status_code in {200, 401}, response.text
    return response.status_code == 200


async def refresh(backend: Backend, tokens: dict[str, Any]) -> httpx.Response:
    body = {"refresh_token": tokens["refresh_token"]}
    return await backend.http.post("/auth/refresh", json=body)


@asynccontextmanager
async def recording() -> AsyncIterator[list[AuditEvent]]:
    """What goes to the audit log meanwhile."""
    events: list[AuditEvent] = []
    record = AuditLogger.record

    async def note(audit: AuditLogger, event: AuditEvent) -> None:
        events.append(event)
        await record(audit, event)

    with patch.object(AuditLogger, "record", note):
        yield events
