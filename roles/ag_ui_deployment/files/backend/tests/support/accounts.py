"""What tests do with accounts over HTTP."""

from typing import Any

import httpx

from tests.support.server import PASSWORD, Backend


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask_login(backend: Backend, email: str, password: str = PASSWORD) -> httpx.Response:
    body = {"email": email, "password": password}
    return await backend.http.post("/auth/login", json=body)


async def login(backend: Backend, email: str, password: str = PASSWORD) -> dict[str, Any]:
    """The tokens of a new session."""
    response = await ask_login(backend, email, password)
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
