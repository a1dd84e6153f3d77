"""Work with PostgreSQL by its own client programs, without a password on a command line."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import programs
from .errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .settings import Database

# Where the packages of Debian, Ubuntu and apt.postgresql.org install each version.
VERSIONS = Path("/usr/lib/postgresql")
# More processes than this gain nothing: one table has most of the data.
MAX_JOBS = 4
# Every server has this database. Databases are renamed from there.
MAINTENANCE = "postgres"
_NUMBERED_VERSION = 10_000
# A restore that was interrupted is repeated, so its writes need not be durable before its end.
_BULK_OPTIONS = "-c synchronous_commit=off -c maintenance_work_mem=256MB"
_TABLES = """
SELECT coalesce(json_agg(format('%I.%I', schemaname, tablename) ORDER BY schemaname, tablename), '[]')
  FROM pg_tables WHERE schemaname <> 'information_schema' AND schemaname !~ '^pg_'
"""


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string; it has no backslashes to interpret."""
    return "'" + text.replace("'", "''") + "'"


def jobs() -> int:
    """Return how many processes dump or restore in parallel."""
    return min(MAX_JOBS, os.cpu_count() or 1)


def installed_versions() -> dict[int, Path]:
    """Return the directories of the installed client programs by major version."""
    return {
        int(path.parent.name): path
        for path in VERSIONS.glob("*/bin")
        if path.parent.name.isdigit() and (path / "pg_dump").exists()
    }


class Server:
    """A PostgreSQL server, as seen by one login."""

    def __init__(self, database: Database) -> None:
        """Prepare the environment of the client programs; connects to nothing."""
        self.database = database
        self._environment = {
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
            "PGAPPNAME": "ag-ui-backup",
            "PGCONNECT_TIMEOUT": "10",
            "PGHOST": database.host,
            "PGPORT": str(database.port),
            "PGUSER": database.user,
            "PGSSLMODE": database.sslmode,
            "PGPASSFILE": str(database.passfile),
        }
        if database.ca is not None:
            self._environment["PGSSLROOTCERT"] = str(database.ca)

    def version(self) -> int:
        """Return the major version of the server."""
        return int(self.query("SHOW server_version_num", MAINTENANCE)) // _NUMBERED_VERSION

    def program(self, name: str, version: int) -> Path:
        """Return a client program of a major version, or else of the next later one.

        A program cannot dump a later server, and a much later one may send settings that the server does not know.
        """
        found = installed_versions()
        fitting = [installed for installed in found if installed >= version]
        if not fitting:
            there = ", ".join(map(str, sorted(found))) or "none"
            raise BackupError(
                f"PostgreSQL has version {version}, and this host has client programs of version {there}. Install "
                f"postgresql-client-{version} from the distribution or from apt.postgresql.org on this host."
            )
        return found[min(fitting)] / name

    def query(self, sql: str, database: str | None = None) -> str:
        """Return the output of SQL statements, without the trailing newline.

        Raises:
            BackupError: PostgreSQL cannot be reached, or a statement fails.
        """
        output = programs.run(self._psql(), environment=self._env(database), send=sql)
        return output.removesuffix("\n")

    def json(self, sql: str, database: str | None = None) -> Any:
        """Return the value of a query that gives JSON."""
        return json.loads(self.query(sql, database))

    def tables(self, database: str | None = None) -> list[str]:
        """Return the tables of a database, quoted, with their schema."""
        found: list[str] = self.json(_TABLES, database)
        return found

    def counts(self, database: str | None = None) -> dict[str, int]:
        """Return the number of rows of each table."""
        found: dict[str, int] = self.json(count_query(self.tables(database)), database)
        return found

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Hold a snapshot of the database for the duration of the block."""
        process = subprocess.Popen(
            self._psql(),
            env=self._env(None),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                snapshot = Snapshot(process)
                snapshot.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
                yield snapshot
            finally:
                if process.poll() is None:
                    process.kill()

    def dump(self, directory: Path, snapshot: str, version: int) -> None:
        """Write a snapshot to a directory in pg_dump's directory format."""
        programs.run(
            [
                self.program("pg_dump", version),
                *("--format=directory", f"--jobs={jobs()}", "--compress=1", "--no-password"),
                *("--lock-wait-timeout=60s", f"--snapshot={snapshot}", f"--file={directory}"),
            ],
            environment=self._env(None),
        )

    def create_empty(self, name: str) -> None:
        """Create a database, in place of one of that name from an interrupted run."""
        self.drop(name)
        self.query(
            f"CREATE DATABASE {quoted(name)} TEMPLATE template0 ENCODING 'UTF8'", MAINTENANCE
        )

    def drop(self, name: str) -> None:
        """Drop a database, if it exists, with the sessions of this login in it."""
        self.query(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)", MAINTENANCE)

    def exists(self, name: str) -> bool:
        """Whether the server has a database of this name."""
        sql = f"SELECT count(*) FROM pg_database WHERE datname = {literal(name)}"  # noqa: S608
        return self.query(sql, MAINTENANCE) == "1"

    def restore(self, dump: Path, name: str, version: int, *options: str) -> None:
        """Restore a dump into an empty database; any error ends it.

        Args:
            dump: The directory of the dump.
            name: The database.
            version: The least major version of pg_restore.
            options: Further options of pg_restore.
        """
        programs.run(
            [
                self.program("pg_restore", version),
                *("--exit-on-error", "--no-owner", "--no-password", f"--jobs={jobs()}"),
                *(f"--dbname={name}", *options),
                dump,
            ],
            environment={**self._env(name), "PGOPTIONS": _BULK_OPTIONS},
        )

    def _psql(self) -> list[str | Path]:
        found = installed_versions()
        psql: str | Path = found[max(found)] / "psql" if found else "psql"
        options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password")
        return [psql, *options, "--set=ON_ERROR_STOP=1", "--file=-"]

    def _env(self, database: str | None) -> dict[str, str]:
        return {**self._environment, "PGDATABASE": database or self.database.name}


class Snapshot:
    """A transaction that sees the database at one moment, in a running psql."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Use a psql that reads statements from its standard input."""
        self._process = process

    def send(self, sql: str) -> None:
        """Send statements without a result."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{sql}\n")
        self._process.stdin.flush()

    def ask(self, sql: str) -> str:
        """Return the result of a query of one line.

        Raises:
            BackupError: The session has ended with an error.
        """
        assert self._process.stdout is not None
        try:
            self.send(f"{sql};")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            _, errors = self._process.communicate()
            raise programs.failed("psql", self._process.returncode, errors)
        return line.removesuffix("\n")


def count_query(tables: Sequence[str]) -> str:
    """Return a query for the number of rows of each table, as a JSON object on one line."""
    # Not json_build_object, whose number of arguments is limited.
    rows = " UNION ALL ".join(
        f"SELECT {literal(table)}, (SELECT count(*) FROM {table})"  # noqa: S608 - quoted by PostgreSQL
        for table in tables
    )
    if not rows:
        return "SELECT '{}'"
    return f"SELECT json_object_agg(name, rows) FROM ({rows}) AS counted (name, rows)"  # noqa: S608
