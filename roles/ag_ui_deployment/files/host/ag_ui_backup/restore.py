"""Restore the database of an archive beside the present one, then exchange the two.

A failure before the exchange leaves the present database as it is. The exchange is one transaction. The former
database keeps its content under another name, so that the restore can be undone.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import programs
from .backup import compare
from .errors import BackupError
from .postgresql import MAINTENANCE, Server, literal, quoted
from .settings import Database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The present sessions of the backend end within this time after its instances have stopped.
EXCHANGE_SECONDS = 30.0
_MAY_CREATE = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
_MARK = (
    "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = "
)


class Plan(NamedTuple):
    """What to restore, and where to.

    Attributes:
        server: The server, with a login that owns the database and may create others.
        dump: The directory of the dump.
        manifest: The manifest of the archive.
        grantees: Roles that may connect to the database, if they exist.
    """

    server: Server
    dump: Path
    manifest: Mapping[str, Any]
    grantees: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the database."""
        return self.server.database.name

    @property
    def restored(self) -> str:
        """The name of the database while it is restored."""
        return f"{self.name}_restore"

    @property
    def former(self) -> str:
        """The name of the former database after the exchange."""
        return f"{self.name}_before_restore"

    @property
    def mark(self) -> str:
        """The comment of the database between the exchange and the end of the restore."""
        return f"restored from {self.manifest['name']}"


@contextmanager
def plan(text: str) -> Iterator[Plan]:
    """Read a plan from JSON, which has the password; it is in a file in memory for the duration of the block."""
    try:
        values = json.loads(text)
        dump, manifest = Path(values["dump"]), values["manifest"]
        login = dict(values["database"])
        password, ca = login.pop("password"), login.pop("ca", "")
        grantees = tuple(values["grantees"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"the plan of the restore cannot be read ({error!r})") from error
    shared_memory = "/run" if os.access("/run", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ag-ui-restore-", dir=shared_memory) as folder:
        passfile = Path(folder) / "pgpass"
        passfile.touch(mode=0o600)
        passfile.write_text(pgpass_line(password), encoding="utf-8")
        login["passfile"] = passfile
        if ca:
            login["ca"] = Path(folder) / "ca.crt"
            login["ca"].write_text(ca, encoding="utf-8")
        server = Server(Database.of(login))
        yield Plan(server, dump, manifest, grantees)


def pgpass_line(password: str) -> str:
    """Return the content of a password file that has one password for every server."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n"


def check(plan: Plan) -> dict[str, Any]:
    """Check that the dump can be restored; change nothing.

    Returns:
        `content`, whether the present database has tables, and `restored`, whether it is already this dump, from a
        restore that did not end.

    Raises:
        BackupError: The server, the login or the client programs do not fit.
    """
    server, dumped = plan.server, plan.manifest["database"]
    version = server.version()
    if version < dumped["version"]:
        raise BackupError(
            f"the dump is from PostgreSQL {dumped['version']}, and the server at {server.database.host} is older "
            f"({version}). Upgrade the server, or restore to another one."
        )
    server.program("pg_restore", _client_version(plan, version))
    user = server.database.user
    if server.query(_MAY_CREATE, MAINTENANCE) != "t":
        raise BackupError(
            f"the role {user} may not create databases. As a superuser: ALTER ROLE {quoted(user)} CREATEDB"
        )
    if dumped["owner"] != user:
        raise BackupError(
            f"the tables of the dump belong to {dumped['owner']}, and {user} restores them. Set ag_ui_database_owner "
            f"to {dumped['owner']}."
        )
    missing = _missing_roles(server, [*dumped["roles"], dumped["owner"]])
    if missing:
        raise BackupError(
            f"the dump gives rights to roles that the server does not have: {', '.join(missing)}. Create them first."
        )
    exists = server.exists(plan.name)
    return {
        "version": version,
        "exists": exists,
        "content": exists and bool(server.tables()),
        "restored": exists and _mark(plan) == plan.mark,
    }


def load(plan: Plan) -> None:
    """Restore the dump into a database of its own.

    Raises:
        BackupError: It failed. The present database was not touched.
    """
    server, dumped = plan.server, plan.manifest["database"]
    server.create_empty(plan.restored)
    _grant_connect(plan)
    with tempfile.NamedTemporaryFile("w", prefix="ag-ui-toc-", suffix=".list") as contents:
        contents.write(_contents(plan))
        contents.flush()
        version = _client_version(plan, server.version())
        server.restore(plan.dump, plan.restored, version, f"--use-list={contents.name}")
    compare(server.counts(plan.restored), dumped["tables"])
    server.query("ANALYZE", plan.restored)


def exchange(plan: Plan) -> None:
    """Give the restored database the name of the present one.

    Raises:
        BackupError: Somebody is connected to the present database, or the login does not own it.
    """
    server = plan.server
    exists = server.exists(plan.name)
    former = plan.former
    if exists and server.tables():
        server.drop(former)
    else:
        # An empty database is not kept.
        former = f"{plan.name}_empty"
        server.drop(former)
    rename = f"ALTER DATABASE {quoted(plan.name)} RENAME TO {quoted(former)};" if exists else ""
    _repeat_while_in_use(
        server,
        f"BEGIN; {rename} ALTER DATABASE {quoted(plan.restored)} RENAME TO {quoted(plan.name)}; "
        f"COMMENT ON DATABASE {quoted(plan.name)} IS {literal(plan.mark)}; COMMIT;",
    )
    if former != plan.former:
        server.drop(former)


def finish(plan: Plan) -> None:
    """Remove the mark of an unfinished restore."""
    plan.server.query(f"COMMENT ON DATABASE {quoted(plan.name)} IS NULL", MAINTENANCE)


def _client_version(plan: Plan, version: int) -> int:
    return max(version, int(plan.manifest["database"]["client"]))


def _mark(plan: Plan) -> str:
    return plan.server.query(f"{_MARK}{literal(plan.name)}", MAINTENANCE)


def _missing_roles(server: Server, roles: list[str]) -> list[str]:
    listed = ", ".join(f"({literal(role)})" for role in sorted(set(roles)))
    sql = (
        "SELECT coalesce(json_agg(name), '[]') FROM (VALUES "  # noqa: S608 - quoted
        f"{listed}) AS needed (name) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)"
    )
    found: list[str] = server.json(sql, MAINTENANCE)
    return found


def _grant_connect(plan: Plan) -> None:
    """Restrict who may connect, which a dump does not contain."""
    server, name = plan.server, quoted(plan.restored)
    missing = _missing_roles(server, list(plan.grantees)) if plan.grantees else []
    granted = [
        f"GRANT CONNECT ON DATABASE {name} TO {quoted(it)};"
        for it in plan.grantees
        if it not in missing
    ]
    server.query(
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC; {' '.join(granted)}",
        MAINTENANCE,
    )


def _contents(plan: Plan) -> str:
    """Return the table of contents of the dump without the schema public, which the server has already."""
    version = _client_version(plan, plan.server.version())
    listed = programs.run([plan.server.program("pg_restore", version), "--list", plan.dump])
    return "\n".join(line for line in listed.splitlines() if not _is_of_schema_public(line))


def _is_of_schema_public(line: str) -> bool:
    return any(f" {entry} " in f"{line} " for entry in ("SCHEMA - public", "- SCHEMA public"))


def _repeat_while_in_use(server: Server, sql: str) -> None:
    deadline = time.monotonic() + EXCHANGE_SECONDS
    while True:
        try:
            server.query(sql, MAINTENANCE)
        except BackupError as error:
            if "accessed by other users" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return
