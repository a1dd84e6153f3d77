"""Passwords of PostgreSQL and Redis are changed while clients stay connected, with real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from tests.support.ansible_module import run_module
from tests.support.datastores import as_administrator, database, endpoint, problems, redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW = "new-pässword '\"$\\"
FORMER = "former-password"


@pytest.fixture
async def role() -> str:
    name = f"rotated_{uuid4().hex}"
    await as_administrator(f"CREATE ROLE {name} LOGIN PASSWORD '{FORMER}'")
    return name


def change_role(folder: Path, role: str, new: str, former: str) -> dict[str, Any]:
    login = {"user": role, "password": new, "previous_password": former}
    server = database(logins=[login | {"variables": "ag_ui_database_password"}])
    return run_module("ag_ui_database_password", {"database": server}, folder, {})


async def test_role_changes_its_own_password_once(tmp_path: Path, role: str) -> None:
    at = endpoint("TEST_DATABASE_URL")
    kept = await asyncpg.connect(**at, user=role, password=FORMER, database="test")
    try:
        assert change_role(tmp_path, role, NEW, FORMER)["changed"]
        assert not change_role(tmp_path, role, NEW, FORMER)["changed"]
        assert await kept.fetchval("SELECT current_user") == role
        # The driver of the backend computes the same verifier.
        again = await asyncpg.connect(**at, user=role, password=NEW, database="test")
        await again.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(**at, user=role, password=FORMER, database="test")
    finally:
        await kept.close()
        await as_administrator(f"DROP ROLE {role}")


async def test_role_that_accepts_neither_password_is_reported(tmp_path: Path, role: str) -> None:
    done = change_role(tmp_path, role, NEW, "another-password")
    assert done["failed"]
    assert f"PostgreSQL role {role} could not be changed" in done["msg"]
    assert "another-password" not in str(done)
    await as_administrator(f"DROP ROLE {role}")


async def test_preflight_accepts_the_former_password_of_a_login(tmp_path: Path, role: str) -> None:
    login = {"variables": "ag_ui_database_password", "user": role, "password": NEW}
    [refused] = problems(tmp_path, database=database(logins=[login]))
    assert refused.startswith("ag_ui_database_password, ag_ui_database_name: ")
    both = [login | {"previous_password": FORMER}]
    assert problems(tmp_path, database=database(logins=both)) == []
    wrong = [login | {"previous_password": "another-password"}]
    assert len(problems(tmp_path, database=database(logins=wrong))) == 1
    await as_administrator(f"DROP ROLE {role}")


@pytest.fixture
def user() -> Iterator[str]:
    name = f"rotated-{uuid4().hex}"
    with Redis(**endpoint("TEST_REDIS_URL")) as administrator:
        administrator.execute_command("ACL", "SETUSER", name, "on", f">{FORMER}", "~*", "+@all")
        yield name
        administrator.execute_command("ACL", "DELUSER", name)


def change_user(folder: Path, user: str, **options: Any) -> dict[str, Any]:
    common = {"previous_password": FORMER, "returns_rules": True}
    server = {"redis": redis(user=user, password=NEW)}
    return run_module("ag_ui_redis_password", server | common | options, folder, {})


def logs_in(user: str, password: str) -> bool:
    at = endpoint("TEST_REDIS_URL")
    try:
        with Redis(**at, username=user, password=password) as client:
            return bool(client.ping())
    except AuthenticationError:
        return False


def test_redis_accepts_both_passwords_until_the_former_is_removed(
    tmp_path: Path, user: str
) -> None:
    with Redis(**endpoint("TEST_REDIS_URL"), username=user, password=FORMER) as kept:
        assert kept.ping()
        done = change_user(tmp_path, user)
        assert (done["changed"], done["accepts_previous"]) == (True, True)
        assert logs_in(user, NEW)
        assert logs_in(user, FORMER)
        # The line for the configuration has both digests, and no password.
        assert done["rules"].startswith(f"user {user} on ")
        assert done["rules"].count("#") == 2
        assert not change_user(tmp_path, user)["changed"]
        done = change_user(tmp_path, user, remove_previous=True)
        assert (done["changed"], done["accepts_previous"]) == (True, False)
        assert not change_user(tmp_path, user, remove_previous=True)["changed"]
        assert kept.ping()
    assert logs_in(user, NEW)
    assert not logs_in(user, FORMER)
    assert NEW not in str(done)


def test_all_other_passwords_of_redis_are_removed_on_request(tmp_path: Path, user: str) -> None:
    change_user(tmp_path, user)
    done = change_user(tmp_path, user, previous_password="", remove_others=True)
    assert done["changed"]
    assert not logs_in(user, FORMER)
    assert logs_in(user, NEW)
    assert not change_user(tmp_path, user, previous_password="", remove_others=True)["changed"]


def test_redis_that_accepts_neither_password_is_reported(tmp_path: Path, user: str) -> None:
    done = change_user(tmp_path, user, previous_password="another-password")
    assert done["failed"]
    assert f"ACL SETUSER {user} '>NEW'" in done["msg"]
    assert "another-password" not in str(done)
    assert logs_in(user, FORMER)
