"""The servers that the baselines share, and instances of the backend, run as in its image."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import Process, Setting, free_port, run, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.servers import PostgresServer, RedisServer

BACKEND = Path(__file__).parents[1] / "roles/ag_ui_deployment/files/backend"
START_SECONDS = 60.0
# An event that clients receive and sse_load does not count.
HELLO = json.dumps({"bench_hello": True})

SERVE = ("-m", "src.cli", "serve")
_TEMPLATE = "template_bench"


@dataclass
class Site:
    """A Redis, a PostgreSQL and a folder for logs."""

    folder: Path
    redis: RedisServer
    postgres: PostgresServer
    # Of the administrator.
    email: str = "bench@example.org"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    _runs: int = 0

    def prepare(self) -> None:
        """Create the template database of the runs: migrated, with an administrator."""
        self.postgres.query("postgres", f"CREATE DATABASE {_TEMPLATE}")
        environment = self._environment(_TEMPLATE, "none")
        self._cli(environment, "migrate")
        self._cli(environment, "users", "add", self.email, "--role", "admin", text=self.password)

    @contextlib.contextmanager
    def new_run(self) -> Iterator[str]:
        """Yield a new name for a stream and a database, which exist for the duration of the block.

        Jobs of an earlier run would add to the state of the next one.
        """
        self._runs += 1
        name = f"bench_{self._runs}"
        self.postgres.query("postgres", f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        try:
            yield name
        finally:
            self.postgres.query("postgres", f"DROP DATABASE {name} WITH (FORCE)")
            self.redis.client.delete(name)

    def publish_hello(self, run: str) -> None:
        """Publish an event that shows whether clients are connected."""
        entry: dict[Any, Any] = {
            "event_id": secrets.token_hex(16),
            "type": "bench:hello",
            "data": HELLO,
        }
        self.redis.client.xadd(run, entry)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    @contextlib.contextmanager
    def instance(
        self,
        run: str,
        settings: Mapping[str, str] | None = None,
        program: Sequence[str] = SERVE,
    ) -> Iterator[tuple[Process, int]]:
        """Start an instance, wait until it is healthy, and yield it with its port.

        `program` holds the arguments of Python.
        """
        with self.starting_instance(run, settings, program) as (process, port):
            wait_for(process.name, lambda: _is_healthy(port), START_SECONDS, process)
            yield process, port

    @contextlib.contextmanager
    def starting_instance(
        self,
        run: str,
        settings: Mapping[str, str] | None = None,
        program: Sequence[str] = SERVE,
    ) -> Iterator[tuple[Process, int]]:
        """Start an instance; yield it with its port, before it is healthy."""
        port = free_port()
        environment = self._environment(run, run) | dict(settings or {})
        environment |= {"PORT": str(port), "REDIS_CONSUMER_NAME": f"bench-{port}"}
        setting = Setting(env=environment, cwd=BACKEND)
        with running(
            "backend", [sys.executable, *program], self.log(f"backend-{port}"), setting
        ) as process:
            yield process, port

    def token(self, port: int, email: str | None = None) -> str:
        """Log in at the instance; return an access token."""
        form = urllib.parse.urlencode(
            {"username": email or self.email, "password": self.password}
        ).encode()
        url = f"http://127.0.0.1:{port}/auth/token"
        with urllib.request.urlopen(url, form, timeout=30) as answer:
            token: str = json.load(answer)["access_token"]
            return token

    def _environment(self, database: str, stream: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            # The location of bench.recorder.
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "ENV": "production",
            "HOST": "127.0.0.1",
            "REDIS_URL": self.redis.url,
            "REDIS_STREAM_NAME": stream,
            "DATABASE_URL": self.postgres.url(database),
            "JWT_SECRET": self._secret,
            # A single user opens all streams.
            "STREAMS_MAX": "20000",
            "STREAMS_PER_USER": "20000",
            "RATE_LOGIN_PER_ADDRESS": "100000/minute",
            "RATE_LOGIN_PER_ACCOUNT": "100000/minute",
            "RATE_API_PER_USER": "10000000/minute",
            "RATE_STREAMS_PER_USER": "10000000/minute",
            "RATE_GLOBAL": "10000000/minute",
        }

    def _cli(self, environment: Mapping[str, str], *arguments: str, text: str = "") -> None:
        setting = Setting(env=environment, cwd=BACKEND)
        run([sys.executable, "-m", "src.cli", *arguments], setting, text)


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(json.load(answer)["status"] == "healthy")
    except OSError:
        return False
