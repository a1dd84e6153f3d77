"""Migrations only expand the schema, so that the previous release works with it (docs/architecture.md)."""

import re
from io import StringIO
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

_INI = Path(__file__).resolve().parents[2] / "alembic.ini"
_SCRIPTS = ScriptDirectory.from_config(Config(_INI))
# 0006 reads data, which needs a database; it adds the tables of the audit log.
_REVISIONS = sorted({script.revision for script in _SCRIPTS.walk_revisions()} - {"0006"})
_NEW_TABLE = re.compile(r"CREATE TABLE (\w+)")
# Statements that break a release which still uses the former schema.
_CONTRACTING = re.compile(
    r"DROP TABLE|DROP COLUMN|RENAME|ALTER COLUMN \w+ (SET NOT NULL|TYPE)|SET DATA TYPE"
)
_REQUIRED_COLUMN = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (?!.*DEFAULT).*NOT NULL")


def _statements(revision: str) -> list[str]:
    """The statements of one migration, without running them."""
    output = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": output}
    )
    with Operations.context(context):
        _SCRIPTS.get_revision(revision).module.upgrade()
    return [" ".join(one.split()) for one in output.getvalue().split(";") if one.strip()]


def _breaking(statements: list[str]) -> list[str]:
    """The statements after which the previous release fails."""
    created = {match[1] for one in statements if (match := _NEW_TABLE.search(one))}
    required = [match for one in statements if (match := _REQUIRED_COLUMN.search(one))]
    return [one for one in statements if _CONTRACTING.search(one)] + [
        match[0] for match in required if match[1] not in created
    ]


@pytest.mark.parametrize("revision", _REVISIONS)
def test_migration_only_expands_the_schema(revision: str) -> None:
    assert _breaking(_statements(revision)) == []


@pytest.mark.parametrize(
    ("statement", "breaks"),
    [
        ("ALTER TABLE jobs DROP COLUMN owner", True),
        ("ALTER TABLE jobs RENAME TO work", True),
        ("ALTER TABLE jobs ALTER COLUMN owner SET NOT NULL", True),
        ("ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL", True),
        ("ALTER TABLE jobs ADD COLUMN kind TEXT DEFAULT 'crawl' NOT NULL", False),
        ("ALTER TABLE jobs ADD COLUMN kind TEXT", False),
        ("CREATE INDEX ix ON jobs (kind)", False),
    ],
)
def test_breaking_statements_are_found(statement: str, *, breaks: bool) -> None:
    assert bool(_breaking([statement])) is breaks
