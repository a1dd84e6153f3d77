"""A Redis with a replica and three Sentinels, as processes of this machine."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVICE = "shield"
SENTINEL_PASSWORD = "password-of-the-sentinels"
WAIT_SECONDS = 60.0
# In milliseconds.
PERIODS = ("info-period", "200", "publish-period", "200")
REDIS = """
port {port}
dir {folder}
save ""
requirepass {password}
masterauth {password}
repl-diskless-sync-delay 0
"""
SENTINEL = """
port {port}
dir {folder}
requirepass {own}
sentinel sentinel-pass {own}
sentinel monitor {service} 127.0.0.1 {primary} 2
sentinel auth-pass {service} {password}
sentinel down-after-milliseconds {service} 500
sentinel failover-timeout {service} 1000
"""


def connect(port: int, password: str | None = None, user: str | None = None) -> Redis:
    """Return a client that does not repeat what has failed."""
    return Redis(port=port, username=user, password=password, retry=Retry(NoBackoff(), 0))


def free_ports(number: int) -> list[int]:
    """Return different ports that nobody uses."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class ReplicatedRedis:
    """The servers, by their ports. All use one password, for replication and for the Sentinels too."""

    def __init__(
        self, folder: Path, password: str, *, sentinels: int = 3, **replica: object
    ) -> None:
        """Start them, and wait until all know each other; `replica` are further settings of the replica."""
        self._folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.first, self.second, *self.sentinels = free_ports(2 + sentinels)
        values = {"password": password, "own": SENTINEL_PASSWORD, "service": SERVICE}
        for port in (self.first, self.second):
            self._write(port, REDIS, values)
        lines = [
            f"replicaof 127.0.0.1 {self.first}",
            *(f"{name.replace('_', '-')} {value}" for name, value in replica.items()),
        ]
        with self._config(self.second).open("a") as file:
            file.write("\n".join(lines) + "\n")
        for port in self.sentinels:
            self._write(port, SENTINEL, values | {"primary": self.first})
        with ExitStack() as stack:
            stack.callback(self.close)
            for port in (self.first, self.second, *self.sentinels):
                self.start(port)
            self.wait_until_replicated(password)
            self._wait(self._know_each_other, "Sentinels that know all")
            stack.pop_all()

    def options(self, **values: Any) -> dict[str, Any]:
        """Return the option `redis` of the modules."""
        endpoints = [f"127.0.0.1:{port}" for port in self.sentinels]
        named = {"sentinels": endpoints, "sentinel_service": SERVICE}
        return (
            {
                "host": "127.0.0.1",
                "port": self.first,
                "sentinel_password": SENTINEL_PASSWORD,
            }
            | (named if endpoints else {})
            | values
        )

    def start(self, port: int) -> None:
        """Start a server, and wait until it listens."""
        mode = ["--sentinel"] if port in self.sentinels else []
        self._running[port] = subprocess.Popen(
            ["redis-server", self._config(port), *mode], stdout=subprocess.DEVNULL
        )

        def listens() -> bool:
            assert self._running[port].poll() is None, f"the server at {port} has ended"
            with connect(port) as client, suppress(AuthenticationError):
                client.ping()
            return True

        self._wait(listens, f"the server at {port}")
        if port in self.sentinels:
            # Otherwise a Sentinel finds out after up to ten seconds which role a server has.
            with connect(port, SENTINEL_PASSWORD) as client:
                client.execute_command("SENTINEL DEBUG", *PERIODS)

    def kill(self, port: int) -> None:
        """End a server at once."""
        process = self._running.pop(port)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End all servers."""
        for port in list(self._running):
            self.kill(port)

    def config(self, port: int) -> str:
        """Return the configuration file of a server, which it may have written."""
        return self._config(port).read_text()

    def primary(self) -> int:
        """Return the primary that the first Sentinel names."""
        with connect(self.sentinels[0], SENTINEL_PASSWORD) as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return int(port)

    def fail_over(self, password: str) -> None:
        """Kill the primary, wait until the replica is promoted, and start it again as a replica."""
        former = self.primary()
        self.kill(former)
        self._wait(lambda: self.primary() != former, "a promoted replica")
        self.start(former)
        self.wait_until_replicated(password)

    def wait_until_replicated(self, password: str) -> None:
        """Wait until one of the two servers is a replica, with an open link to the other one."""

        def is_replicated() -> bool:
            links = []
            for port in (self.first, self.second):
                with connect(port, password) as client:
                    links.append(client.info("replication").get("master_link_status"))
            return sorted(map(str, links)) == ["None", "up"]

        self._wait(is_replicated, "an open link of the replica")

    def accepts(self, port: int, password: str, user: str | None = None) -> bool:
        """Whether a server accepts a password."""
        try:
            with connect(port, password, user) as client:
                return bool(client.ping())
        except AuthenticationError:
            return False

    def _know_each_other(self) -> bool:
        known = set()
        for port in self.sentinels:
            with connect(port, SENTINEL_PASSWORD) as client:
                state = client.sentinel_master(SERVICE)
            known.add((state["num-slaves"], state["num-other-sentinels"]))
        return known <= {(1, len(self.sentinels) - 1)}

    def _wait(self, check: Callable[[], bool], what: str) -> None:
        eventually(check, what, within=WAIT_SECONDS, ignoring=(RedisError,))

    def _config(self, port: int) -> Path:
        return self._folder / str(port) / "redis.conf"

    def _write(self, port: int, template: str, values: dict[str, Any]) -> None:
        self._config(port).parent.mkdir()
        text = template.format(port=port, folder=self._config(port).parent, **values)
        self._config(port).write_text(text)
