"""The servers of the tests of the datastores, as options of the modules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from tests.support.ansible_module import run_module

if TYPE_CHECKING:
    from pathlib import Path


def endpoint(variable: str) -> dict[str, Any]:
    """Return host and port of the address or URL in an environment variable of script/test."""
    value = os.environ[variable]
    parts = urlsplit(value if "://" in value else f"//{value}")
    return {"host": parts.hostname, "port": parts.port}


def problems(folder: Path, **server: dict[str, Any]) -> list[str]:
    common: dict[str, Any] = {"account": {"name": "root", "uid": 0}, "certificate": "/nonexistent"}
    done = run_module("ag_ui_preflight", common | server, folder, {"LC_ALL": "C.UTF-8"})
    return [one for one in done.get("problems", []) if "run by systemd" not in one]


def database(variable: str = "TEST_DATABASE_URL", **values: Any) -> dict[str, Any]:
    login = {"variables": "ag_ui_database_password", "user": "test", "password": "test"}
    return {"name": "test", "logins": [login]} | endpoint(variable) | values


async def as_administrator(statement: str) -> None:
    """Execute a statement in the database of `database()`."""
    at = endpoint("TEST_DATABASE_URL")
    connection = await asyncpg.connect(**at, user="test", password="test", database="test")
    await connection.execute(statement)
    await connection.close()


def redis(variable: str = "TEST_REDIS_URL", **values: Any) -> dict[str, Any]:
    return {"password": "", "db": 0} | endpoint(variable) | values
