"""Account operations over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any
from unittest.mock import patch

import httpx

from src.services.audit_logger import AuditEvent, AuditLogger
from tests.support.server import PASSWORD, Backend

# A wrong password that is refused without computing a hash.
TOO_LONG = "x" * 1500


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask_login(
    backend: Backend, email: str, password: str = PASSWORD, **second_factor: str
) -> httpx.Response:
    """Send a login request and return its response, whatever its status is."""
    body = {"email": email, "password": password, **second_factor}
    return await backend.http.post("/auth/login", json=body)


async def log_in_from(
    backend: Backend,
    address: str,
    email: str,
    password: str = PASSWORD,
    *,
    cookies: dict[str, str] | None = None,
    **second_factor: str,
) -> httpx.Response:
    """Log in through the proxy from a client with this address and these cookies.

    Args:
        backend: The instance.
        address: The client's IP address, sent as X-Forwarded-For.
        email: The account's email address.
        password: The account's password.
        cookies: The client's cookies by name.
        second_factor: Additional fields of the login, `otp` or `recovery_code`.

    Returns:
        The response, whatever its status is.
    """
    headers = {"X-Forwarded-For": address}
    if cookies:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    body = {"email": email, "password": password, **second_factor}
    return await backend.http.post("/auth/login", headers=headers, json=body)


def cookies_of(response: httpx.Response) -> SimpleCookie:
    """Return the cookies that a response sets, with their attributes."""
    cookies = SimpleCookie()
    for line in response.headers.get_list("set-cookie"):
        cookies.load(line)
    return cookies


def device_cookie_of(response: httpx.Response) -> dict[str, str]:
    """Return the cookie that identifies a browser after a login."""
    cookies = cookies_of(response)
    return {name: one.value for name, one in cookies.items() if "_device_" in name}


async def login(
    backend: Backend, email: str, password: str = PASSWORD, **second_factor: str
) -> dict[str, Any]:
    """Log in and return the tokens of the new session."""
    response = await ask_login(backend, email, password, **second_factor)
    assert response.status_code == 200, response.text
    tokens: dict[str, Any] = response.json()
    return tokens


async def is_logged_in(backend: Backend, tokens: dict[str, Any]) -> bool:
    """Whether the access token is valid."""
    response = await backend.http.get("/auth/me", headers=bearer(tokens["access_token"]))
    assert response.status_code in {200, 401}, response.text
    return response.status_code == 200


async def refresh(backend: Backend, tokens: dict[str, Any]) -> httpx.Response:
    """Exchange the refresh token in `tokens`; return the response."""
    body = {"refresh_token": tokens["refresh_token"]}
    return await backend.http.post("/auth/refresh", json=body)


@asynccontextmanager
async def recording() -> AsyncIterator[list[AuditEvent]]:
    """Collect the audit events recorded during the block."""
    events: list[AuditEvent] = []
    record = AuditLogger.record

    async def note(audit: AuditLogger, event: AuditEvent) -> None:
        events.append(event)
        await record(audit, event)

    with patch.object(AuditLogger, "record", note):
        yield events
