"""Migrations create the schema of the models, once, even when run concurrently."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from src.services.operations.migration import migrate
from src.services.operations.schema import is_schema_current, newest_revision
from src.utils.database import Base, Database
from tests.support.builders import settings_of
from tests.support.environment import Environment


@pytest.fixture
async def empty(environment: Environment) -> AsyncIterator[Database]:
    """A database without tables."""
    await environment.query("DROP SCHEMA public CASCADE")
    await environment.query("CREATE SCHEMA public")
    database = Database(settings_of(DATABASE_URL=environment.owner_url), statement_timeout=None)
    yield database
    await database.close()


async def test_migration_from_an_empty_database(empty: Database) -> None:
    assert not await is_schema_current(empty)
    assert await migrate(empty) == (None, newest_revision())
    assert await is_schema_current(empty)
    assert await migrate(empty) == (newest_revision(), newest_revision())


async def test_schema_equals_the_models(empty: Database) -> None:
    await migrate(empty)

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Base.metadata))

    async with empty.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_concurrent_migrations(empty: Database, environment: Environment) -> None:
    settings = settings_of(DATABASE_URL=environment.owner_url)
    others = [Database(settings, statement_timeout=None) for _ in range(3)]
    outcomes = await asyncio.gather(*(migrate(one) for one in (empty, *others)))
    for one in others:
        await one.close()
    assert sorted(outcomes, key=str) == sorted(
        [(None, newest_revision()), *[(newest_revision(), newest_revision())] * 3], key=str
    )


async def test_data_survives_a_second_migration(empty: Database) -> None:
    await migrate(empty)
    async with empty.engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO dead_letters VALUES (1, 0, 'r', ''::bytea, now())")
        )
    await migrate(empty)
    async with empty.engine.connect() as connection:
        rows = await connection.execute(text("SELECT count(*) FROM dead_letters"))
        assert rows.scalar() == 1
