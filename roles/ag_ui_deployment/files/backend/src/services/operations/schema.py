"""The database schema: bring it up to date, and tell whether it fits this release."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from src.services.operations.database_rights import grant_rights
from src.utils.database import Database

_INI = Path(__file__).resolve().parents[3] / "alembic.ini"
# Any number will do, as long as every release of this application uses the same.
_LOCK = 0x5348_4945_4C44


def newest_revision() -> str | None:
    """The revision that this release is written for."""
    return ScriptDirectory.from_config(Config(_INI)).get_current_head()


async def migrate(
    database: Database, application: str | None = None
) -> tuple[str | None, str | None]:
    """Upgrade to the newest revision; returns the revision before and after.

    One at a time: a second migration waits for the first and then finds nothing to do. What a later
    release has made is left as it is.
    `application` is the role that the application connects as, where it is not the one that owns
    the tables: it gets the rights that it needs.
    """
    async with database.engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = await connection.run_sync(_revision)
        if is_later(before):
            return before, before
        await connection.run_sync(_upgrade)
        await connection.run_sync(grant_rights, application)
        return before, await connection.run_sync(_revision)


async def schema_fits(database: Database) -> bool:
    """Whether the schema has this release's revision or knows of a newer one."""
    async with database.engine.connect() as connection:
        current = await connection.run_sync(_revision)
    return current == newest_revision() or is_later(current)


def is_later(revision: str | None) -> bool:
    """Whether a later release has made it, whose migrations keep this one working."""
    known = {
        script.revision for script in ScriptDirectory.from_config(Config(_INI)).walk_revisions()
    }
    return revision is not None and revision not in known


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = Config(_INI)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
