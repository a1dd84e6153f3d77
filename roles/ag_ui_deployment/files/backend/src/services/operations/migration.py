"""Migration of the database schema.

Apart from the module schema, because the server does not need Alembic, which takes long to import.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from src.services.operations.database_rights import grant_privileges
from src.services.operations.schema import current_revision, is_later
from src.utils.database import Database

_INI = Path(__file__).resolve().parents[3] / "alembic.ini"
# Key of the advisory lock. All releases must use the same.
_LOCK = 0x5348_4945_4C44


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
        before = await connection.run_sync(current_revision)
        if is_later(before):
            return before, before
        await connection.run_sync(_upgrade)
        await connection.run_sync(grant_privileges, application)
        return before, await connection.run_sync(current_revision)


def _upgrade(connection: Connection) -> None:
    config = Config(_INI)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
