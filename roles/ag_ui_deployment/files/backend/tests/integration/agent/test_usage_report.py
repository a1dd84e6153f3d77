"""Totals of the tokens that users used."""

from datetime import date
from typing import Any

import pytest

from src.models.permissions import Role
from src.models.user import User
from tests.support.accounts import bearer
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import Backend

USAGE = [
    ("alice", date(2026, 1, 1), "small", 1, 2),
    ("alice", date(2026, 1, 2), "small", 10, 20),
    ("alice", date(2026, 1, 3), "large", 400, 0),
    ("bob", date(2026, 1, 2), "small", 30, 3),
]


@pytest.fixture
async def users(backend: Backend, environment: Environment) -> dict[str, User]:
    users = {
        name: await backend.add_user(f"{name}@shield.test", Role.VIEWER)
        for name in ("alice", "bob")
    }
    for name, day, model, read, written in USAGE:
        await environment.query(
            "INSERT INTO agent_token_usage (owner_id, day, model, input_tokens, output_tokens) "
            "VALUES ($1, $2, $3, $4, $5)",
            *(users[name].id, day, model, read, written),
        )
    return users


@pytest.fixture
async def admin(backend: Backend) -> User:
    return await backend.add_user("root@shield.test", Role.ADMIN)


async def totals(backend: Backend, admin: User, **query: Any) -> list[tuple[str, str, int, int]]:
    """Read all pages."""
    found = []
    cursor: str | None = ""
    while cursor is not None:
        page = await backend.http.get(
            "/admin/usage",
            headers=bearer(backend.token_of(admin)),
            params={"limit": 1, **query, "cursor": cursor},
        )
        assert page.status_code == 200, page.text
        found += page.json()["items"]
        cursor = page.json()["next_cursor"]
    return [
        (
            one["user_name"].partition("@")[0],
            one["model"],
            one["input_tokens"],
            one["output_tokens"],
        )
        for one in found
    ]


@pytest.mark.usefixtures("users")
async def test_totals_by_user_and_model_the_greatest_first(backend: Backend, admin: User) -> None:
    large, both = ("alice", "large", 400, 0), {("alice", "small", 11, 22), ("bob", "small", 30, 3)}
    first, *rest = await totals(backend, admin)
    assert (first, set(rest)) == (large, both)
    days = {"since": "2026-01-02", "until": "2026-01-02"}
    assert await totals(backend, admin, **days) == [
        ("bob", "small", 30, 3),
        ("alice", "small", 10, 20),
    ]
    assert await totals(backend, admin, until="2025-12-31") == []


@pytest.mark.parametrize("cursor", ["x", "dXNhZ2UgeCB5IHo=", "dXNhZ2UgMSAyIDM="])
async def test_invalid_cursor_is_refused(backend: Backend, admin: User, cursor: str) -> None:
    answer = await backend.http.get(
        f"/admin/usage?cursor={cursor}", headers=bearer(backend.token_of(admin))
    )
    check_problem(answer, 400, "bad-cursor")


async def test_only_administrators_see_it(backend: Backend, users: dict[str, User]) -> None:
    answer = await backend.http.get(
        "/admin/usage", headers=bearer(backend.token_of(users["alice"]))
    )
    check_problem(answer, 403, "not-permitted")
