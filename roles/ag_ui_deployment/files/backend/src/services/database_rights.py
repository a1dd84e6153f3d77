"""What the application's role may do in the database, where another role owns the tables."""

from collections.abc import Iterator

from sqlalchemy import Connection, Table, func, select, text

from src.models.audit import AuditRow, CheckpointRow
from src.repositories.audit import KEEP_LOCK
from src.utils.database import Base

_APPENDED_ONLY = (AuditRow.__tablename__, CheckpointRow.__tablename__)


def grant_rights(connection: Connection, role: str | None) -> None:
    """Give a role (None: the one that is connected) what the application's queries need.

    It can read and write our tables, but neither change nor delete what is in the audit log, and
    it can alter no table. To the role that owns them this says nothing new.
    """
    # Retention changes the rights on the audit log too, and PostgreSQL refuses both at once.
    connection.execute(select(func.pg_advisory_xact_lock(KEEP_LOCK)))
    quote = connection.dialect.identifier_preparer.quote
    schema = quote(connection.execute(select(func.current_schema())).scalar_one())
    grantee = quote(role) if role is not None else "CURRENT_USER"
    for statement in _statements(connection, schema, grantee):
        connection.execute(text(statement))


def _statements(connection: Connection, schema: str, grantee: str) -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {schema} TO {grantee}"
    # Whether the schema fits stands there.
    yield f"GRANT SELECT ON {schema}.alembic_version TO {grantee}"
    for table in Base.metadata.sorted_tables:
        name = f"{schema}.{table.name}"
        if table.name in _APPENDED_ONLY:
            yield f"GRANT SELECT, INSERT ON {name} TO {grantee}"
            yield f"REVOKE UPDATE, DELETE, TRUNCATE ON {name} FROM {grantee}"
        else:
            yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {grantee}"
        if sequence := _sequence_of(connection, table, name):
            yield f"GRANT USAGE ON SEQUENCE {sequence} TO {grantee}"
    yield f"GRANT EXECUTE ON FUNCTION {schema}.audit_delete_through TO {grantee}"


def _sequence_of(connection: Connection, table: Table, name: str) -> str | None:
    """What numbers the rows of a table; None where the application does."""
    column = table.autoincrement_column
    if column is None:
        return None
    found: str | None = connection.scalar(select(func.pg_get_serial_sequence(name, column.name)))
    return found
