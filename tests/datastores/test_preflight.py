"""Preflight checks of Redis and PostgreSQL against real servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis import Redis

from tests.support.ansible_module import import_util
from tests.support.datastores import as_administrator, database, endpoint, problems, redis

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ca() -> str:
    return Path(os.environ["TEST_CA_FILE"]).read_text()


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_postgresql_accepts_modes_without_certificate_check(tmp_path: Path, mode: str) -> None:
    assert problems(tmp_path, database=database(sslmode=mode)) == []


def test_postgresql_certificate_is_verified(tmp_path: Path, ca: str) -> None:
    named = {"host": "localhost", "sslmode": "verify-full", "ca": ca}
    assert problems(tmp_path, database=database(**named)) == []
    assert problems(tmp_path, database=database(sslmode="verify-ca", ca=ca)) == []
    for wrong in ({"ca": ""}, {"host": "127.0.0.1"}):
        [found] = problems(tmp_path, database=database(**(named | wrong)))
        assert found.startswith("ag_ui_database_sslmode: TLS with PostgreSQL at ")
        assert "Set ag_ui_datastores_ca to " in found


def test_required_tls_that_postgresql_does_not_offer_is_reported(tmp_path: Path) -> None:
    # The PgBouncer pool does not offer TLS here.
    server = database("TEST_PGBOUNCER_SESSION", sslmode="require")
    [found] = problems(tmp_path, database=server)
    assert found.startswith("ag_ui_database_sslmode: ")
    assert "the server has no TLS, and sslmode is require" in found


def test_session_pool_is_accepted_and_transaction_pool_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, database=database("TEST_PGBOUNCER_SESSION")) == []
    [found] = problems(tmp_path, database=database("TEST_PGBOUNCER_TRANSACTION"))
    assert found.startswith("ag_ui_database_host, ag_ui_database_port: ")
    assert "pool_mode = session" in found


def test_redis_certificate_is_verified(tmp_path: Path, ca: str) -> None:
    secure = redis("TEST_REDIS_TLS_URL", tls=True, ca=ca)
    assert problems(tmp_path, redis=secure) == []
    for wrong in ({"ca": ""}, {"host": "127.0.0.1"}):
        [found] = problems(tmp_path, redis=secure | wrong)
        assert found.startswith("ag_ui_redis_tls: TLS with Redis at ")
    [found] = problems(tmp_path, redis=redis(tls=True))
    assert found.startswith("ag_ui_redis_tls: ")


def test_wrong_redis_password_is_reported(tmp_path: Path) -> None:
    [found] = problems(tmp_path, redis=redis(user="nobody", password="wrong-password"))
    assert "ag_ui_redis_user" in found
    assert "WRONGPASS" in found


def test_redis_sentinel_is_refused(tmp_path: Path) -> None:
    [found] = problems(tmp_path, redis=redis("TEST_REDIS_SENTINEL"))
    assert found.startswith("ag_ui_redis_host, ag_ui_redis_port: ")
    assert "is a Redis sentinel, which is not supported here" in found


@pytest.fixture
def service() -> Iterator[str]:
    """The name of a primary that the Sentinel knows."""
    host, name = os.environ["TEST_SERVICES_HOST"], f"preflight-{uuid4().hex}"
    sentinel = endpoint("TEST_REDIS_SENTINEL")
    with Redis(sentinel["host"], sentinel["port"], protocol=2) as client:
        client.execute_command("SENTINEL", "MONITOR", name, host, 6379, 1)
        yield name
        client.execute_command("SENTINEL", "REMOVE", name)


def test_primary_is_found_by_its_sentinel(tmp_path: Path, service: str) -> None:
    by_name: dict[str, Any] = {
        "host": "nowhere.invalid",
        "sentinels": [os.environ["TEST_REDIS_SENTINEL"]],
    }
    assert problems(tmp_path, redis=redis(**by_name, sentinel_service=service)) == []
    [found] = problems(tmp_path, redis=redis(**by_name, sentinel_service="nothing"))
    assert found.startswith("ag_ui_redis_sentinel_service: ")
    [found] = problems(
        tmp_path, redis=redis(**by_name, sentinel_service=service, sentinel_password="wrong-word")
    )
    assert found.startswith("ag_ui_redis_sentinel_password: ")


def test_primary_is_found_among_several_servers(tmp_path: Path) -> None:
    primary, standby = os.environ["TEST_DATABASE_PAIR"].split()
    endpoints = [urlsplit(url).netloc.rpartition("@")[2] for url in (primary, standby)]
    both = database(standbys=endpoints) | {"port": 1}
    assert problems(tmp_path, database=both) == []
    [found] = problems(tmp_path, database=both | {"standbys": endpoints[1:]})
    assert "none of these servers is a primary" in found
    assert "Not reached: " in found
    [found] = problems(tmp_path, database=database(standbys=endpoints))
    assert "both accept writes" in found


async def test_account_is_found_by_its_email() -> None:
    has_user = import_util("ag_ui_datastores").has_user
    server = database(standbys=[], sslmode="prefer", ca="")
    assert not has_user(server, "o'neil@example.com", 5)
    await as_administrator("CREATE TABLE users AS SELECT 'o''neil@example.com' AS email")
    try:
        assert has_user(server, " O'Neil@example.com", 5)
        assert not has_user(server, "other@example.com", 5)
    finally:
        await as_administrator("DROP TABLE users")
