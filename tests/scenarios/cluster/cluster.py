"""The hosts of the cluster, their common address, and the servers that are primary at the moment."""

from __future__ import annotations

import ssl
import subprocess
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.scenarios.support.http import Instance, Proxy
from tests.scenarios.support.site import Site
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

# As in molecule/cluster/prepare.yml.
ADDRESS: Final = "172.30.76.10"
SERVICE: Final = "shield"
SENTINEL_PORTS: Final = (26379, 26380, 26381)
REDIS_PORTS: Final = (6379, 6380)
POSTGRESQL: Final = {5432: "main", 5433: "standby"}
BOOTED_WITHIN: Final = 180.0
PROMOTED_WITHIN: Final = 90.0


class ClusterSite(Site):
    """One host of the cluster, with the data that all hosts share."""

    def __init__(self, inventory: str, host: str) -> None:
        super().__init__(inventory, host=host, datastores="cluster_data")

    # --- Redis -------------------------------------------------------------------------------

    @cached_property
    def sentinel(self) -> Any:
        """The Sentinels; asking for the primary tries them in turn."""
        address = self.datastores.address
        return Sentinel(  # type: ignore[no-untyped-call]  # redis-py lacks types here
            [(address, port) for port in SENTINEL_PORTS],
            sentinel_kwargs={
                "password": self.settings["REDIS_SENTINEL_PASSWORD"],
                "protocol": 2,
                "socket_timeout": 2,
            },
        )

    @property
    def _login(self) -> dict[str, Any]:
        password = unquote(urlsplit(self.settings["REDIS_URL"]).password or "")
        return {"password": password, "protocol": 2, "retry": Retry(NoBackoff(), 0)}

    def producer_redis(self) -> Redis:
        client: Redis = self.sentinel.master_for(
            SERVICE, socket_timeout=5, socket_connect_timeout=5, **self._login
        )
        return client

    @cached_property
    def redis(self) -> Redis:
        """The primary; after a failover the new one."""
        client: Redis = self.sentinel.master_for(SERVICE, decode_responses=True, **self._login)
        return client

    def redis_port(self) -> int:
        """Return the port of the primary. Raises RedisError while there is none."""
        return int(self.sentinel.discover_master(SERVICE)[1])

    def wait_for_replica(self, port: int) -> None:
        """Wait until the Redis with this port has copied the primary."""

        def is_replica() -> bool:
            with Redis(self.datastores.address, port, decode_responses=True, **self._login) as one:
                found: Any = one.info("replication")
            return bool(found["role"] == "slave" and found["master_link_status"] == "up")

        eventually(is_replica, "a replica", within=PROMOTED_WITHIN, ignoring=(RedisError, OSError))

    # --- PostgreSQL --------------------------------------------------------------------------

    @property
    def _psql_port(self) -> tuple[str, ...]:
        return ("--port", str(self.postgresql_port()))

    def postgresql_port(self) -> int:
        """Return the port of the primary."""
        return next(port for port in POSTGRESQL if self._is_primary(port))

    def _is_primary(self, port: int) -> bool:
        ask = f"runuser -u postgres -- psql -XAtqc 'SELECT pg_is_in_recovery()' --port {port}"
        return str(self.datastores.host.run(f"cd / && {ask}").stdout).strip() == "f"

    def datastore_units(self, kind: str) -> list[str]:
        """Return the unit of the first primary."""
        return {
            "redis": ["redis-server@6379.service"],
            "postgresql": ["postgresql@15-main.service"],
        }[kind]

    def instance(self, port: int) -> Instance:
        """Return the route to an instance, which listens for the proxies of all hosts."""
        return Instance(self.dev.name, port, self.dev.address)

    # --- the host ----------------------------------------------------------------------------

    @property
    def consumer(self) -> str:
        """The name of its instance in the consumer group."""
        [name] = self.consumers
        return name

    def has_address(self) -> bool:
        """Whether it has the common address."""
        return f" {ADDRESS}/32" in self.dev.run("ip", "-brief", "address", "show", "eth0")

    def lose(self) -> None:
        """End all processes at once, without a packet that would tell anybody."""
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            self.dev.run("iptables", "--insert", chain, "--jump", "DROP")
        subprocess.run(["docker", "kill", self.dev.name], check=True, capture_output=True)

    def boot(self) -> None:
        """Start it again and wait until it serves."""
        subprocess.run(["docker", "start", self.dev.name], check=True, capture_output=True)
        self.wait_until_healthy(within=BOOTED_WITHIN)


def common_proxy(hosts: Sequence[ClusterSite]) -> Proxy:
    """Return the route through the common address."""
    certificates = "".join(host.certificate for host in hosts)
    tls = ssl.create_default_context(cadata=certificates)
    return Proxy(ADDRESS, hosts[0].proxy.server_name, tls, name="common address")


def move_address(to: ClusterSite, others: Sequence[ClusterSite]) -> None:
    """Give a host the common address."""
    for other in others:
        if other.has_address():
            other.dev.systemctl("restart", "keepalived.service")
    eventually(to.has_address, "the common address at the host", within=30)
