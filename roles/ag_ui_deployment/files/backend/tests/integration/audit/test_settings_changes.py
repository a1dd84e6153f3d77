"""The audit log records which settings have changed, by name and without values."""

import asyncio
from typing import Any

import orjson
import pytest

from src.config import Settings
from src.services.audit.keys import AuditKeys
from src.services.audit.settings_changes import SettingsChanges
from src.services.audit_logger import AuditLogger
from src.utils.database import Database
from tests.support.environment import Environment
from tests.support.proxy import TcpProxy
from tests.support.server import running
from tests.support.waiting import until


async def compare(settings: Settings) -> None:
    """Compare settings as an instance does when it starts."""
    database = Database(settings)
    keys = AuditKeys(settings.audit_keys)
    try:
        await SettingsChanges(database, keys, AuditLogger(database), settings).compare()
    finally:
        await database.close()


async def recorded(environment: Environment) -> list[dict[str, Any]]:
    rows = await environment.query(
        "SELECT details FROM audit_log "
        "WHERE action = 'settings.change' AND actor = 'operator' ORDER BY seq"
    )
    return [orjson.loads(row[0]) for row in rows]


async def test_differences_from_the_last_start_are_recorded(environment: Environment) -> None:
    await compare(environment.settings())
    assert await recorded(environment) == []
    await compare(environment.settings())
    assert await recorded(environment) == []
    changes = {"SMTP_URL": "smtps://u:hunter2@mail", "STREAMS_MAX": 7, "CORS_ORIGINS": "http://a"}
    await compare(environment.settings(**changes))
    assert await recorded(environment) == [{"changed": sorted(changes)}]
    await compare(environment.settings())
    assert await recorded(environment) == [{"changed": sorted(changes)}] * 2


async def test_values_are_not_stored(environment: Environment) -> None:
    secret = "hunter2-" * 5
    for values in (
        {},
        {"AUDIT_KEY": secret, "AGENT_SYSTEM_PROMPT": "hunter2", "STREAMS_MAX": 7131},
    ):
        await compare(environment.settings(**values))
    assert len(await recorded(environment)) == 1
    for table in ("applied_settings", "audit_log"):
        kept = repr([tuple(row) for row in await environment.query(f"SELECT * FROM {table}")])  # noqa: S608 - the names above
        assert "STREAMS_MAX" in kept
        assert "hunter2" not in kept
        assert "7131" not in kept


async def test_concurrent_starts_record_one_change(environment: Environment) -> None:
    await compare(environment.settings())
    changed = environment.settings(STREAMS_MAX=7)
    await asyncio.gather(*(compare(changed) for _ in range(4)))
    assert await recorded(environment) == [{"changed": ["STREAMS_MAX"]}]


async def test_instance_settings_are_ignored(environment: Environment) -> None:
    await compare(environment.settings())
    of_its_own = {
        "HOST": "10.0.0.7",
        "PORT": 8003,
        "REDIS_CONSUMER_NAME": "other-8003",
        "TRUSTED_PROXIES": "10.0.0.1",
    }
    await compare(environment.settings(**of_its_own))
    assert await recorded(environment) == []


async def test_key_rotation_changes_only_the_key_settings(environment: Environment) -> None:
    old, new, last = ({"AUDIT_KEY": letter * 32} for letter in "onl")
    await compare(environment.settings(**old))
    await compare(environment.settings(**new, AUDIT_PREVIOUS_KEYS="o" * 32))
    assert await recorded(environment) == [{"changed": ["AUDIT_KEY", "AUDIT_PREVIOUS_KEYS"]}]
    # The comparison was stored under the new key: the old one may be removed.
    await compare(environment.settings(**new))
    assert (await recorded(environment))[1:] == [{"changed": ["AUDIT_PREVIOUS_KEYS"]}]
    await compare(environment.settings(**last))
    (entry,) = (await recorded(environment))[2:]
    assert entry["changed"] == []
    assert entry["not_compared"] > 50


async def test_settings_unknown_to_the_previous_release(environment: Environment) -> None:
    await compare(environment.settings(RUNS_PER_USER=3))
    names = "('RUNS_PER_USER', 'JOBS_PER_USER')"
    await environment.query(f"DELETE FROM applied_settings WHERE name IN {names}")  # noqa: S608
    await compare(environment.settings(RUNS_PER_USER=3))
    assert await recorded(environment) == [{"changed": ["RUNS_PER_USER"]}]


async def test_start_does_not_wait_for_the_database(
    environment: Environment, database_proxy: TcpProxy
) -> None:
    await compare(environment.settings())
    await database_proxy.refuse()
    # The database URL has changed too.
    settings = environment.settings(DATABASE_URL=database_proxy.url, STREAMS_MAX=7)
    async with running(settings, healthy=False) as backend:
        assert (await backend.http.get("/health/ready")).status_code == 200
        changes = backend.services.audit.settings_changes
        await until(lambda: changes.status == "waiting for PostgreSQL")
        await database_proxy.accept()
        await until(lambda: changes.status == "compared", 30)
        await until(lambda: backend.services.audit.logger.waiting == 0)
        assert await recorded(environment) == [{"changed": ["DATABASE_URL", "STREAMS_MAX"]}]
        assert not changes.failed


async def test_failed_record_is_repeated(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duplicate entry is better than a missing one."""
    await compare(environment.settings())
    changed = environment.settings(STREAMS_MAX=7)
    record = AuditLogger.record

    async def failing(*_: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(AuditLogger, "record", failing)
    with pytest.raises(ConnectionResetError):
        await compare(changed)
    monkeypatch.setattr(AuditLogger, "record", record)
    await compare(changed)
    assert await recorded(environment) == [{"changed": ["STREAMS_MAX"]}]
