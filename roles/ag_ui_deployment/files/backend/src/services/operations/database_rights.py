"""Database privileges of the application's role, if another role owns the tables."""

from collections.abc import Iterator

from sqlalchemy import Connection, Table, func, select, text

from src.models.audit import AuditRow, CheckpointRow
from src.repositories.audit import CHECKPOINT_LOCK
from src.utils.database import Base, Database

_APPEND_ONLY_TABLES = (AuditRow.__tablename__, CheckpointRow.__tablename__)
_APPEND_PRIVILEGES = ("SELECT", "INSERT")
# Missing tables are ignored: has_table_privilege returns null for them.
_MISSING = text(
    "SELECT DISTINCT name FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[])) "
    "AS needed (name, privilege) WHERE NOT has_table_privilege(to_regclass(name), privilege) "
    "ORDER BY name"
)


def grant_privileges(connection: Connection, role: str | None) -> None:
    """Grant a role the privileges that the application needs.

    The role can read and write the tables, but cannot change or delete entries of the audit log, nor
    alter tables.

    Args:
        connection: A connection as the role that owns the tables.
        role: The role; None for the connected one.
    """
    # Retention also changes privileges on the audit log, and PostgreSQL rejects concurrent changes.
    connection.execute(select(func.pg_advisory_xact_lock(CHECKPOINT_LOCK)))
    quote = connection.dialect.identifier_preparer.quote
    schema = quote(connection.execute(select(func.current_schema())).scalar_one())
    grantee = quote(role) if role is not None else "CURRENT_USER"
    for statement in _statements(connection, schema, grantee):
        connection.execute(text(statement))


async def missing_privileges(database: Database) -> list[str]:
    """The tables for which the connected role lacks a privilege that the application needs."""
    required = [
        (table.name, privilege)
        for table in Base.metadata.sorted_tables
        for privilege in _required_privileges(table)
    ]
    tables, privileges = zip(*required, strict=True)
    async with database.engine.connect() as connection:
        found = await connection.execute(
            _MISSING, {"tables": list(tables), "privileges": list(privileges)}
        )
        return list(found.scalars())


def _required_privileges(table: Table) -> tuple[str, ...]:
    return (
        _APPEND_PRIVILEGES
        if table.name in _APPEND_ONLY_TABLES
        else (*_APPEND_PRIVILEGES, "UPDATE", "DELETE")
    )


def _statements(connection: Connection, schema: str, grantee: str) -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {schema} TO {grantee}"
    # For is_schema_current().
    yield f"GRANT SELECT ON {schema}.alembic_version TO {grantee}"
    for table in Base.metadata.sorted_tables:
        name = f"{schema}.{table.name}"
        yield f"GRANT {', '.join(_required_privileges(table))} ON {name} TO {grantee}"
        if table.name in _APPEND_ONLY_TABLES:
            yield f"REVOKE UPDATE, DELETE, TRUNCATE ON {name} FROM {grantee}"
        if sequence := _sequence_of(connection, table, name):
            yield f"GRANT USAGE ON SEQUENCE {sequence} TO {grantee}"
    yield f"GRANT EXECUTE ON FUNCTION {schema}.audit_delete_through TO {grantee}"


def _sequence_of(connection: Connection, table: Table, name: str) -> str | None:
    """The sequence that generates the ids of a table, None if the application assigns them."""
    column = table.autoincrement_column
    if column is None:
        return None
    found: str | None = connection.scalar(select(func.pg_get_serial_sequence(name, column.name)))
    return found
