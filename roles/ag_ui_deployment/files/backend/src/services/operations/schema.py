"""Compatibility of the database schema with this release."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from src.utils.database import Database

_VERSIONS = Path(__file__).resolve().parents[3] / "migrations" / "versions"


def known_revisions() -> frozenset[str]:
    """The schema revisions of this release, from the names of its migrations."""
    return frozenset(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*_*.py"))


def newest_revision() -> str:
    """The newest schema revision of this release."""
    return max(known_revisions())


def current_revision(connection: Connection) -> str | None:
    """The revision of the schema, None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


async def is_schema_current(database: Database) -> bool:
    """Whether the schema has the revision of this release or of a later one."""
    async with database.engine.connect() as connection:
        current = await connection.run_sync(current_revision)
    return current == newest_revision() or is_later(current)


def is_later(revision: str | None) -> bool:
    """Whether a revision is of a later release, which remains compatible with this one."""
    return revision is not None and revision not in known_revisions()
