"""A folder that stands for a deployed host, with a real database, for tests of the backup."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

TOP = Path(__file__).resolve().parents[2]
PROGRAM = TOP / "roles/ag_ui_deployment/files/host"
OWNER, BACKUP, APPLICATION = "backup_test_owner", "backup_test_reader", "backup_test_application"
PASSWORD = "a:password\\of 'the' test"
POSITION = {"last_id": "5-0", "added": 9, "stored_id": "4-0", "stored_number": 8}
MFA_KEY = "a key with 'quotes' and \\ backslashes"
ROLES = f"""
SELECT format('CREATE ROLE %I', name) FROM (VALUES ('{OWNER}'), ('{BACKUP}'), ('{APPLICATION}')) AS needed (name)
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \\gexec
ALTER ROLE {OWNER} LOGIN CREATEDB;
ALTER ROLE {BACKUP} LOGIN CREATEDB;
GRANT pg_read_all_data TO {BACKUP};
"""  # noqa: S608 - names of our own
CONTENT = f"""
CREATE TABLE alembic_version (version_num text);
INSERT INTO alembic_version VALUES ('0016');
CREATE TABLE events (id bigserial PRIMARY KEY, data json);
INSERT INTO events (data) SELECT json_build_object('n', n) FROM generate_series(1, 500) AS n;
CREATE TABLE audit_log (seq bigint PRIMARY KEY);
REVOKE UPDATE, DELETE ON audit_log FROM {OWNER};
GRANT SELECT, INSERT ON events TO {APPLICATION};
"""  # noqa: S608
DOCKER = """#!/bin/sh
printf '%s\\n' "$@" >"$AG_UI_TEST_CALLS"
printf '%s\\n' "$AG_UI_TEST_POSITION"
"""


@dataclass
class BackupSite:
    """The host: its folder, and its database on the server of TEST_DATABASE_URL."""

    folder: Path
    database: str = field(default_factory=lambda: f"backup_{uuid4().hex[:12]}")
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Create the files and the database."""
        self._server = urlsplit(os.environ["TEST_DATABASE_URL"])
        self.archives = self.folder / "archives"
        self.state = self.folder / "state"
        self.metrics = self.folder / "metrics"
        for path in (self.archives, self.state, self.metrics, self.folder / "programs"):
            path.mkdir()
        self._write_configuration()
        docker = self.folder / "programs/docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        self.sql(ROLES, "postgres")
        escaped = PASSWORD.replace("'", "''")
        for role in (OWNER, BACKUP):
            self.sql(f"ALTER ROLE {role} PASSWORD '{escaped}'", "postgres")
        self.sql(f"CREATE DATABASE {self.database} OWNER {OWNER}", "postgres")
        self.sql(f"SET ROLE {OWNER}; {CONTENT}")
        passfile = self.folder / "pgpass"
        passfile.touch(mode=0o600)
        passfile.write_text("*:*:*:*:" + PASSWORD.replace("\\", "\\\\").replace(":", "\\:") + "\n")
        self.settings = {
            "host": "hx-dev-server",
            "directory": str(self.archives),
            "database": self.login(BACKUP) | {"passfile": str(passfile)},
            "encryption": "none",
            "recipient": "",
            "keep": 3,
            "keep_days": 0,
            "rsync_target": "",
            "s3": {},
            "metrics": str(self.metrics),
            "configuration": str(self.folder / "etc"),
            "files": [str(self.folder / "site.conf"), "/nonexistent"],
            "state": str(self.state),
            "user": "1001:1001",
        }

    def _write_configuration(self) -> None:
        etc = self.folder / "etc"
        release = etc / "releases/0123456789abcdef"
        for path in (release, etc / "secrets", etc / "tls"):
            path.mkdir(parents=True)
        (etc / "current").symlink_to("releases/0123456789abcdef")
        (release / "release.env").write_text("# x\nAG_UI_IMAGE=backend:1\nAG_UI_RELEASE=0123\n")
        quoted = MFA_KEY.replace("\\", "\\\\").replace("'", "\\'")
        (release / "backend.env").write_text(f"# x\nENV=production\nMFA_KEY='{quoted}'\n")
        (release / "record.json").write_text("{}")
        (etc / "secrets/mfa_key").write_text("secret of the test\n")
        (etc / "tls/server.key").write_text("key\n")
        (self.folder / "site.conf").write_text("server {}\n")

    def login(self, role: str) -> dict[str, Any]:
        """Return where the database is, for a role."""
        return {
            "host": self._server.hostname,
            "port": self._server.port,
            "name": self.database,
            "user": role,
            "sslmode": "prefer",
        }

    def sql(self, statements: str, database: str | None = None) -> list[str]:
        """Run statements as the superuser of the server; return the lines of the result."""
        url = self._server._replace(path=f"/{database or self.database}").geturl()
        done = subprocess.run(
            ["psql", "--no-psqlrc", "--quiet", "-At", "--set=ON_ERROR_STOP=1", "--file=-", url],
            input=statements,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def databases(self) -> set[str]:
        """Return the databases of this test, by the rest of their names."""
        names = self.sql("SELECT datname FROM pg_database", "postgres")
        return {name.removeprefix(self.database) for name in names if self.database in name}

    def run(
        self, *arguments: str | Path, send: str | None = None, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the program; `settings` replace those of the host."""
        file = self.folder / "settings.json"
        file.write_text(json.dumps(self.settings | settings))
        return subprocess.run(
            [sys.executable, "-m", "ag_ui_backup", "--settings", file, *arguments],
            env=os.environ
            | {
                "PYTHONPATH": str(PROGRAM),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PATH": f"{self.folder}/programs:{os.environ['PATH']}",
                "AG_UI_TEST_CALLS": str(self.folder / "calls"),
                "AG_UI_TEST_POSITION": json.dumps(POSITION),
            },
            input=send,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def back_up(self, **settings: Any) -> Path:
        """Make a backup; return the archive."""
        done = self.run("run", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return Path(self.result()["archive"])

    def result(self) -> dict[str, Any]:
        """Return the stored result of the last backup."""
        found: dict[str, Any] = json.loads((self.state / "backup.json").read_text())
        return found

    def unpack(self, archive: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Extract an archive into the folder `unpacked`."""
        return self.run("unpack", archive, self.folder / "unpacked", *options)

    def restore(self, step: str, **login: Any) -> subprocess.CompletedProcess[str]:
        """Run a step of the restore of what is unpacked."""
        plan = {
            "dump": str(self.folder / "unpacked/database"),
            "manifest": json.loads((self.folder / "unpacked/manifest.json").read_text()),
            "database": self.login(OWNER) | {"password": PASSWORD} | login,
            "grantees": [APPLICATION, "a role that does not exist"],
        }
        return self.run("restore", step, send=json.dumps(plan))

    def close(self) -> None:
        """Drop the databases of this test."""
        for name in self.databases():
            self.sql(f"DROP DATABASE {self.database}{name} WITH (FORCE)", "postgres")
