"""Temporary Redis and PostgreSQL servers, from the distribution's programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

from bench.processes import (
    BenchError,
    Process,
    Setting,
    User,
    free_port,
    run,
    running,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 60.0


def program(name: str) -> str:
    """Return the path of a program. Raises BenchError if it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None:
        raise BenchError(f"{name} is not installed; script/bench installs it")
    return found


@dataclass(frozen=True)
class RedisServer:
    """A running Redis with a client."""

    process: Process
    port: int
    client: Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Start a Redis without persistence, which a stream used as a buffer does not need."""
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "no", "--dir", str(folder), "--maxclients", "15000"]
    with (
        running("redis-server", command, folder / "redis.log") as process,
        Redis(host="127.0.0.1", port=port, protocol=2) as client,
    ):
        wait_for("Redis", lambda: _answers(client), _START_SECONDS, process)
        yield RedisServer(process, port, client)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL; `programs` is the folder of its client programs."""

    process: Process
    port: int
    programs: Path

    def url(self, database: str) -> str:
        return f"postgresql://bench@127.0.0.1:{self.port}/{database}"

    def query(self, database: str, statement: str) -> str:
        """Run a statement; return one line per row, columns separated by `|`."""
        command = [f"{self.programs}/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        command += ["--set", "ON_ERROR_STOP=1", "--dbname", self.url(database)]
        return run([*command, "--command", statement]).strip()


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[PostgresServer]:
    """Start a PostgreSQL with the distribution's settings, so that commits are durable."""
    programs = _postgres_programs()
    user = _postgres_user()
    port = free_port()
    own = folder / "postgresql"
    own.mkdir()
    if user:
        os.chown(own, user.uid, user.gid)
    data = own / "data"
    setting = Setting(user=user, cwd=own)
    command = [f"{programs}/initdb", "--pgdata", str(data), "--username", "bench"]
    run([*command, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"], setting)
    command = [f"{programs}/postgres", "-D", str(data), "-k", str(own), "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]
    with running("postgres", command, folder / "postgresql.log", setting) as process:
        ready = [f"{programs}/pg_isready", "--quiet", "--host", "127.0.0.1", "--port", str(port)]
        wait_for("PostgreSQL", lambda: _succeeds(ready), _START_SECONDS, process)
        yield PostgresServer(process, port, programs)


def _succeeds(command: list[str]) -> bool:
    try:
        run(command)
    except BenchError:
        return False
    return True


def _postgres_programs() -> Path:
    """Return the newest version's programs; Debian installs each version in its own folder."""
    releases = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    if releases:
        return releases[-1].parent
    return Path(program("postgres")).parent


def _postgres_user() -> User | None:
    """Return the package's user if this process is root, as which PostgreSQL refuses to run."""
    if os.geteuid():
        return None
    account = pwd.getpwnam("postgres")
    return User(account.pw_uid, account.pw_gid)
