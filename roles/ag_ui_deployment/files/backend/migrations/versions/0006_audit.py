"""The audit log: append-only, chained, with signed checkpoints.

Revision: 0006
Previous: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_TABLES = ("audit_log", "audit_checkpoints")

# Rejects all changes except deletions of rows older than a day that a retention checkpoint covers.
_REFUSE = """
CREATE FUNCTION {schema}.audit_refuse() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_LEVEL = 'ROW' THEN
        IF OLD.at < now() - interval '1 day' AND EXISTS (
            SELECT FROM {schema}.audit_checkpoints
            WHERE purpose = 'retention' AND seq >= OLD.seq
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$
"""

# The owner has no DELETE privilege either: this function grants it to itself while it runs.
_DELETE = """
CREATE FUNCTION {schema}.audit_delete_through(through bigint, most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deleted bigint;
BEGIN
    GRANT DELETE ON {schema}.audit_log, {schema}.audit_checkpoints TO CURRENT_USER;
    DELETE FROM {schema}.audit_log WHERE seq IN (
        SELECT seq FROM {schema}.audit_log WHERE seq <= through ORDER BY seq LIMIT most
    );
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM {schema}.audit_checkpoints
        WHERE at < now() - interval '1 day'
        AND number < (SELECT min(number) FROM {schema}.audit_checkpoints WHERE seq >= through);
    REVOKE DELETE ON {schema}.audit_log, {schema}.audit_checkpoints FROM CURRENT_USER;
    RETURN deleted;
END $$
"""


def upgrade() -> None:
    _make_tables()
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(_REFUSE.format(schema=schema))
    op.execute(_DELETE.format(schema=schema))
    op.execute(f"REVOKE ALL ON FUNCTION {schema}.audit_delete_through FROM PUBLIC")
    for table in _TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_rows BEFORE UPDATE OR DELETE ON {schema}.{table} "
            f"FOR EACH ROW EXECUTE FUNCTION {schema}.audit_refuse()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {schema}.{table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.audit_refuse()"
        )
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {schema}.{table} FROM CURRENT_USER, PUBLIC")


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION audit_delete_through, audit_refuse")


def _make_tables() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Uuid()),
        sa.Column("actor", sa.Text()),
        sa.Column("target", sa.Text()),
        sa.Column("address", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("details", postgresql.JSON(), nullable=False),
        sa.Column("prev_hash", postgresql.BYTEA(), nullable=False),
        sa.Column("hash", postgresql.BYTEA(), nullable=False),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    for column in ("action", "actor", "actor_id", "target"):
        op.create_index(f"ix_audit_log_{column}", "audit_log", [column, "seq"])
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", postgresql.BYTEA(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("signature", postgresql.BYTEA(), nullable=False),
        sa.CheckConstraint("purpose IN ('interval', 'retention')", name="checkpoint_purpose_known"),
    )
    op.create_index("ix_audit_checkpoints_seq", "audit_checkpoints", ["seq"])
