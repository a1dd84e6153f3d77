"""The site under test: its machines, how to reach them, and their state."""

from __future__ import annotations

import json
import shlex
import ssl
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import redis as redis_py
import testinfra
from redis.backoff import NoBackoff
from redis.retry import Retry
from testinfra.utils.ansible_runner import AnsibleRunner

from tests.scenarios.support.http import Answer, Instance, Proxy, request
from tests.shield import STREAM
from tests.support.playbook import host_variables
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

    from tests.scenarios.support.http import Route

GROUP: Final = "ag-ui-clients"
PASSWORD: Final = "a-password-of-the-scenarios"
VARIABLES: Final = (
    "ansible_host",
    "ag_ui_server_name",
    "ag_ui_admin_email",
    "ag_ui_admin_password",
    "ag_ui_database_owner_password",
)
GRACE: Final = 30.0
"""Seconds within which a stopped container must be gone."""
RESTART_LIMIT: Final = 60.0
"""Seconds for the service to answer again after the restart of a host."""


def execute(container: str, *command: str, send: str | None = None) -> str:
    """Return the output of a command in a container. Raises with its errors if it fails."""
    done = subprocess.run(
        ["docker", "exec", "-i", container, *command],
        input=send,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise AssertionError(
            f"{shlex.join(command)} in {container} ended with {done.returncode}: "
            f"{done.stdout}{done.stderr}"
        )
    return done.stdout


@dataclass(frozen=True)
class Account:
    """A user of the backend, with an access token."""

    id: str
    email: str
    role: str
    token: str = field(repr=False)


@dataclass
class Machine:
    """A container in place of a host."""

    inventory_name: str
    variables: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the container."""
        return self.variables["ansible_host"] or self.inventory_name

    @cached_property
    def host(self) -> Host:
        return testinfra.get_host(f"docker://{self.name}")

    @cached_property
    def address(self) -> str:
        """The IP address as seen from this machine; fixed, so that it survives a restart."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        shown = subprocess.run(
            ["docker", "inspect", "--format", networks, self.name],
            capture_output=True,
            text=True,
            check=True,
        )
        return shown.stdout.split()[0]

    def run(self, *command: str, send: str | None = None) -> str:
        """Run a command that must succeed; return its output."""
        return execute(self.name, *command, send=send)

    def systemctl(self, verb: str, *units: str) -> str:
        """Run systemctl with a verb; return its output."""
        return self.run("systemctl", verb, *units)

    @contextmanager
    def stopped(self, *units: str) -> Iterator[None]:
        """Stop the units for the duration of the block."""
        self.systemctl("stop", *units)
        try:
            yield
        finally:
            self.systemctl("start", *units)

    def is_active(self, unit: str) -> bool:
        return bool(self.host.run("systemctl is-active --quiet %s", unit).rc == 0)


class Site:
    """A dev server and its datastores, as described by an inventory."""

    def __init__(
        self, inventory: str, *, host: str | None = None, datastores: str = "shield_datastores"
    ) -> None:
        """Read the inventory.

        Args:
            inventory: Its path.
            host: The dev server, if the group has several.
            datastores: The group of the host with Redis and PostgreSQL.
        """
        self._inventory = inventory
        self.dev = _machine(inventory, "ag_ui", host)
        self._datastores = datastores

    @cached_property
    def datastores(self) -> Machine:
        """The host with Redis and PostgreSQL."""
        return _machine(self._inventory, self._datastores)

    @cached_property
    def gateway(self) -> Machine:
        """The host with LiteLLM and the simulated Shield, in scenarios that have one."""
        return _machine(self._inventory, "shield_gateway")

    # --- configuration -----------------------------------------------------------------------

    @cached_property
    def settings(self) -> dict[str, str]:
        """The backend's environment file."""
        lines = self.dev.run("cat", "/etc/ag-ui/current/backend.env").splitlines()
        pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
        return {name: _unquoted(value) for name, _, value in pairs}

    @cached_property
    def admin_password(self) -> str:
        """The password in the inventory, or else the one generated on the host."""
        given = self.dev.variables["ag_ui_admin_password"]
        return given or self.dev.run("cat", "/etc/ag-ui/secrets/admin_password").rstrip("\n")

    @cached_property
    def secrets(self) -> dict[str, str]:
        """All secrets of the deployment by description."""
        redis, database = (
            urlsplit(self.settings[name]).password or "" for name in ("REDIS_URL", "DATABASE_URL")
        )
        secrets = {
            "key that signs the tokens": self.settings["JWT_SECRET"],
            "key of the proxy": self.settings["PROXY_KEY"],
            "token for the metrics": self.settings["METRICS_TOKEN"],
            "password of Redis": unquote(redis),
            "password of Redis as in its URL": redis,
            "password of PostgreSQL": unquote(database),
            "password of PostgreSQL as in its URL": database,
            "password of the tables' owner": self.dev.variables["ag_ui_database_owner_password"],
            "password of the administrator": self.admin_password,
            "API key of LiteLLM": self.settings.get("LITELLM_API_KEY", ""),
        }
        return {name: secret for name, secret in secrets.items() if secret}

    @cached_property
    def ports(self) -> list[int]:
        """The ports of the instances, from the enabled units."""
        listed = self.dev.run("sh", "-c", "ls /etc/systemd/system/ag-ui.target.wants")
        units = [line for line in listed.split() if line.startswith("ag-ui-backend@")]
        return sorted(int(unit.split("@")[1].split(".")[0]) for unit in units)

    @property
    def consumers(self) -> set[str]:
        """The names of the instances in the consumer group."""
        return {f"{self.dev.inventory_name}-{port}" for port in self.ports}

    # --- routes ------------------------------------------------------------------------------

    @cached_property
    def certificate(self) -> str:
        """The certificate that clients of the proxy trust, in PEM format."""
        return self.dev.run("cat", "/etc/ag-ui/tls/server.crt")

    @cached_property
    def proxy(self) -> Proxy:
        name = self.dev.variables["ag_ui_server_name"] or self.dev.inventory_name
        return Proxy(self.dev.address, name, ssl.create_default_context(cadata=self.certificate))

    def instance(self, port: int) -> Instance:
        return Instance(self.dev.name, port)

    @property
    def instances(self) -> list[Instance]:
        return [self.instance(port) for port in self.ports]

    @property
    def routes(self) -> list[Route]:
        """All routes to the service."""
        return [self.proxy, *self.instances]

    @cached_property
    def redis_url(self) -> str:
        """The URL of the stream's Redis as seen from this machine."""
        parts = urlsplit(self.settings["REDIS_URL"])
        login = f"{parts.netloc.rpartition('@')[0]}@" if parts.password else ""
        return parts._replace(
            netloc=f"{login}{self.datastores.address}:{parts.port or 6379}"
        ).geturl()

    def producer_redis(self) -> redis_py.Redis | None:
        """Return the Redis client of a producer; None for one that connects to `redis_url`."""
        return None

    @cached_property
    def redis(self) -> redis_py.Redis:
        return redis_py.Redis.from_url(
            self.redis_url, decode_responses=True, protocol=2, retry=Retry(NoBackoff(), 0)
        )

    # --- health ------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Return the /health report through the proxy; empty if there is none."""
        answer = request(self.proxy, "GET", "/health")
        body = answer.json() if answer.status in {200, 503} else {}
        return body if isinstance(body, dict) else {}

    def is_healthy(self) -> bool:
        """Whether every instance, and the one that the proxy reaches, reports healthy."""
        reports = [request(instance, "GET", "/health") for instance in self.instances]
        return all(
            report.status == 200 and report.json()["status"] == "healthy" for report in reports
        ) and (self.health().get("status") == "healthy")

    def wait_until_healthy(self, *, within: float = RESTART_LIMIT) -> None:
        eventually(
            self.is_healthy, "a healthy service", within=within, ignoring=(OSError, ValueError)
        )

    def is_ready(self, port: int) -> bool:
        """Whether the instance is ready; False if it is unreachable."""
        try:
            return request(self.instance(port), "GET", "/health/ready").status == 200
        except OSError:
            return False

    # --- accounts ----------------------------------------------------------------------------

    def ask_for_token(self, email: str, password: str) -> Answer:
        """Log in with the form of /auth/token; return the response."""
        return request(
            self.proxy, "POST", "/auth/token", form={"username": email, "password": password}
        )

    def account(self, email: str, role: str, password: str = PASSWORD) -> Account:
        """Return the account with this email address; create it if it does not exist."""
        answer = self.ask_for_token(email, password)
        if answer.status == 401:
            self.cli("users", "add", email, "--role", role, send=f"{password}\n")
            answer = self.ask_for_token(email, password)
        assert answer.status == 200, answer
        token = answer.json()["access_token"]
        me = request(self.proxy, "GET", "/auth/me", token=token).json()
        return Account(me["id"], email, role, token)

    def admin(self) -> Account:
        """Return the administrator's account."""
        email = self.dev.variables["ag_ui_admin_email"]
        return self.account(email, "admin", self.admin_password)

    def cli(self, *arguments: str, send: str | None = None) -> str:
        """Run the backend's command line in the first instance's container."""
        return self.dev.run(
            *("docker", "exec", "-i", self.container(self.ports[0])),
            *("python", "-m", "src.cli", *arguments),
            send=send,
        )

    # --- containers and units ----------------------------------------------------------------

    @staticmethod
    def container(port: int) -> str:
        return f"ag-ui-backend-{port}"

    @staticmethod
    def unit(port: int) -> str:
        return f"ag-ui-backend@{port}.service"

    def containers(self) -> dict[str, str]:
        """Return all containers of the backend, running or not: name to id."""
        listed = self.dev.run(
            *("docker", "ps", "--all", "--no-trunc", "--filter", "name=^ag-ui-backend-"),
            *("--format", "{{.Names}} {{.ID}}"),
        )
        return dict(line.split() for line in listed.splitlines())

    def wait_until_gone(self) -> None:
        """Wait until no container is left after a stop of the target.

        systemd stops the instances because of the target and does not wait for them.
        """
        eventually(lambda: not self.containers(), "no container left", within=GRACE)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return `docker inspect` of a container or image on the dev server."""
        [found] = json.loads(self.dev.run("docker", "inspect", name))
        return dict(found)

    def kill(self, port: int, *, and_then: str = "true") -> None:
        """Send SIGKILL to the container's process; run `and_then` before anything can react."""
        pid = self.inspect(self.container(port))["State"]["Pid"]
        self.dev.run("sh", "-c", f"kill -9 {pid}; {and_then}")

    # --- datastores --------------------------------------------------------------------------

    def sql(self, query: str) -> list[str]:
        """Return the rows of a query, unaligned, columns separated by `|`."""
        return self.datastores.run(*self._psql, "--command", query).splitlines()

    @property
    def _psql(self) -> tuple[str, ...]:
        database = urlsplit(self.settings["DATABASE_URL"]).path.lstrip("/")
        return (
            *("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database),
            *self._psql_port,
        )

    @property
    def _psql_port(self) -> tuple[str, ...]:
        """The options of psql that select the server."""
        return ()

    @property
    def psql_command(self) -> list[str]:
        """The command for a session as the database's superuser, which ends at the first error."""
        return [
            *("docker", "exec", "-i", self.datastores.name),
            *(*self._psql, "--set", "ON_ERROR_STOP=1"),
        ]

    def stored(self, job_id: str) -> list[str]:
        """Return the stream ids of a job's events in PostgreSQL, in order."""
        return self.sql(
            "SELECT stream_ms || '-' || stream_seq FROM events "  # noqa: S608 - an id of our own
            f"WHERE job_id = '{job_id}' ORDER BY stream_ms, stream_seq"
        )

    def dead_letter(self, stream_id: str) -> str:
        """Return the reason of a dead letter.

        Empty if the entry is none, or is also stored as an event.
        """
        position = f"(stream_ms, stream_seq) = ({stream_id.replace('-', ', ')})"
        return "".join(
            self.sql(
                f"SELECT reason FROM dead_letters WHERE {position} "  # noqa: S608 - an id of Redis
                f"AND NOT EXISTS (SELECT FROM events WHERE {position})"
            )
        )

    @contextmanager
    def database_locked(self) -> Iterator[None]:
        """Prevent the storing of events: an instance that has read a batch keeps it pending."""
        psql = subprocess.Popen(
            self.psql_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert psql.stdin
        assert psql.stdout
        with psql:
            psql.stdin.write("BEGIN; LOCK TABLE events IN EXCLUSIVE MODE;\n\\echo locked\n")
            psql.stdin.flush()
            assert psql.stdout.readline() == "locked\n"
            try:
                yield
            finally:
                psql.stdin.close()

    def group(self) -> dict[str, Any]:
        """Return XINFO GROUPS of the group; empty if it does not exist."""
        groups: Any = self.redis.xinfo_groups(STREAM)
        found = [group for group in groups if group["name"] == GROUP]
        return dict(found[0]) if found else {}

    def pending(self) -> dict[str, int]:
        """Return how many entries each consumer has read and not acknowledged."""
        consumers: Any = self.redis.xinfo_consumers(STREAM, GROUP)
        return {consumer["name"]: consumer["pending"] for consumer in consumers}

    def backlog(self) -> str:
        """Describe what the group has not processed yet; empty if nothing.

        Does not use the lag of Redis, which stays wrong after unread entries were trimmed.
        """
        group, newest = self.group(), self.redis.xinfo_stream(STREAM)["last-generated-id"]
        if not group:
            return "there is no group"
        if group["last-delivered-id"] != newest:
            return f"handed out up to {group['last-delivered-id']} of {newest}"
        return f"{group['pending']} pending" if group["pending"] else ""

    def wait_until_caught_up(self, *, within: float = 60) -> None:
        """Wait until the group has read and acknowledged all entries."""

        def nothing_is_left() -> bool:
            backlog = self.backlog()
            assert not backlog, backlog
            return True

        eventually(
            nothing_is_left,
            "everything read and acknowledged",
            within=within,
            ignoring=(redis_py.RedisError, AssertionError),
        )

    def datastore_units(self, kind: str) -> list[str]:
        """Return the units of Redis or PostgreSQL on the datastores' host."""
        if kind == "redis":
            return ["redis-server.service"]
        listed = self.datastores.run(
            *("systemctl", "list-units", "--all", "--plain", "--no-legend", "postgresql@*.service")
        )
        return [line.split()[0] for line in listed.splitlines()]


def _machine(inventory: str, group: str, name: str | None = None) -> Machine:
    if name is None:
        [name] = AnsibleRunner(inventory).get_hosts(group)
    return Machine(name, host_variables(inventory, name, VARIABLES))


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1].replace("\\'", "'").replace("\\\\", "\\")
    return value
