"""Migration of the database schema, and its compatibility with this release."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from src.services.operations.database_rights import grant_privileges
from src.utils.database import Database

_INI = Path(__file__).resolve().parents[3] / "alembic.ini"
# Key of the advisory lock. All releases must use the same.
_LOCK = 0x5348_4945_4C44


def newest_revision() -> str | None:
    """The newest schema revision that this release knows."""
    return ScriptDirectory.from_config(Config(_INI)).get_current_head()


async def migrate(
    database: Database, application: str | None = None
) -> tuple[str | None, str | None]:
    """Upgrade the schema to the newest revision and grant privileges.

    Concurrent migrations are serialised. A schema of a later release is left unchanged.

    Args:
        database: A connection as the role that owns the tables.
        application: The role that the application connects as; None for the same role.

    Returns:
        The revision before and after, None for an empty database.
    """
    async with database.engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = await connection.run_sync(_revision)
        if is_later(before):
            return before, before
        await connection.run_sync(_upgrade)
        await connection.run_sync(grant_privileges, application)
        return before, await connection.run_sync(_revision)


async def is_schema_current(database: Database) -> bool:
    """Whether the schema has the revision of this release or of a later one."""
    async with database.engine.connect() as connection:
        current = await connection.run_sync(_revision)
    return current == newest_revision() or is_later(current)


def is_later(revision: str | None) -> bool:
    """Whether a revision is of a later release, which remains compatible with this one."""
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
