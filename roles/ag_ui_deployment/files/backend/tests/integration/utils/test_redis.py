"""Redis over TLS, and failovers: behind a name that resolves to another server, and with a Sentinel."""

import asyncio
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from src.models.permissions import Role
from src.utils.outages import explain
from src.utils.redis import REDIS_ERRORS, command_client, reader_client
from tests.support.accounts import bearer
from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running
from tests.support.sse import sse
from tests.support.waiting import until


class TestTls:
    @pytest.fixture
    def url(self) -> str:
        return os.environ["TEST_REDIS_TLS_URL"]

    async def test_certificate_of_the_configured_authority(
        self, environment: Environment, url: str, authority: str
    ) -> None:
        settings = environment.settings(REDIS_URL=url, REDIS_CA=authority)
        for client in (command_client(settings), reader_client(settings)):
            assert await client.ping()
            await client.aclose()
        async with running(settings) as backend:
            await backend.services.auth.limits.check_global()
            assert (await backend.health())["status"] == "healthy"

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    async def test_untrusted_certificate(
        self, environment: Environment, url: str, authority: str, host: str
    ) -> None:
        of_another_name = host != "localhost"
        settings = environment.settings(
            REDIS_URL=url.replace("localhost", host),
            REDIS_CA=authority if of_another_name else "",
        )
        client = command_client(settings)
        with pytest.raises(REDIS_ERRORS) as caught:
            await client.ping()
        assert "certificate that is not trusted" in explain(caught.value)
        await client.aclose()


@contextmanager
def resetting_server() -> Iterator[str]:
    """Run a server that resets every connection; yield its URL. The thread acts at any moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset_connections() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                without_linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, without_linger)
                connection.close()

        thread = threading.Thread(target=reset_connections)
        thread.start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


async def test_reset_connection_is_a_redis_error(environment: Environment) -> None:
    """Also if a busy process notices it only when it writes: uvloop raises a RuntimeError then."""

    async def keep_busy() -> None:
        while True:
            time.sleep(0.002)  # noqa: ASYNC251 - blocks the event loop on purpose
            await asyncio.sleep(0)

    with resetting_server() as url:
        client = command_client(environment.settings(REDIS_URL=url))
        busy = asyncio.create_task(keep_busy())
        pings = (client.ping() for _ in range(200))
        errors = await asyncio.gather(*pings, return_exceptions=True)
        busy.cancel()
        await client.aclose()
    assert [error for error in errors if not isinstance(error, REDIS_ERRORS)] == []


async def local_port(url: str) -> int:
    """Return the port of a server inside its container."""
    async with Redis.from_url(url) as redis:
        found: Any = await redis.config_get("port")
    return int(found["port"])


async def follow(url: str, primary: str, host: str = "127.0.0.1") -> None:
    """Make a server a replica of the primary, which it reaches at this host."""
    port = await local_port(primary)
    async with Redis.from_url(url) as redis:
        await redis.replicaof(host, str(port))


async def promote(url: str) -> None:
    async with Redis.from_url(url) as redis:
        await redis.replicaof("NO", "ONE")


async def is_replicating(url: str) -> bool:
    async with Redis.from_url(url) as redis:
        return bool((await redis.info("replication"))["master_link_status"] == "up")


async def accepts_writes(backend: Backend, token: str) -> bool:
    """Whether a ticket, which is recorded in Redis, opens a stream."""
    answer = await backend.http.post("/auth/ticket", headers=bearer(token))
    query = {"ticket": answer.json()["ticket"]}
    async with backend.http.stream("GET", "/events", params=query) as response:
        return response.status_code == httpx.codes.OK


class TestFailover:
    @pytest.fixture
    async def pair(self) -> AsyncIterator[tuple[str, str]]:
        """A primary and its replica; both become primaries afterwards."""
        first, second = os.environ["TEST_REDIS_PAIR"].split()
        await follow(second, first)
        await until(lambda: is_replicating(second))
        yield first, second
        for url in (first, second):
            await promote(url)

    async def test_all_clients_use_the_new_primary(
        self, environment: Environment, pair: tuple[str, str]
    ) -> None:
        old, new = pair
        async with TcpProxy(old, 6379) as name, Redis.from_url(old, protocol=2) as before:
            proxied = replace(environment, redis_url=name.url, redis=before)
            async with running(proxied.settings()) as backend:
                user = await backend.add_user("admin@shield.test", Role.ADMIN)
                token = backend.token_of(user)
                # Connections of all kinds of clients are open to the server that is demoted.
                await proxied.publish(shield_event())
                async with sse(backend.http, token=token) as client:
                    await client.until(lambda seen: seen.events)
                    await until(proxied.settled)
                    await promote(new)
                    await follow(old, new)
                    name.forward_to(new)
                    async with Redis.from_url(new, protocol=2) as after:
                        promoted = replace(proxied, redis=after)
                        count = len(client.events)
                        await promoted.publish(shield_event())
                        await client.until(lambda seen: len(seen.events) > count)
                        await until(promoted.settled)
                        await until(lambda: accepts_writes(backend, token))
                        assert len(await environment.stored()) == 2
                        assert (await backend.health())["status"] == "healthy"


class TestSentinel:
    """A Sentinel names servers by their addresses in the network of the container."""

    @pytest.fixture
    def host(self) -> str:
        return os.environ["TEST_SERVICES_HOST"]

    @pytest.fixture
    async def sentinel(self) -> AsyncIterator[Any]:
        """A client; redis-py lacks the types of what the tests call."""
        url = f"redis://{os.environ['TEST_REDIS_SENTINEL']}"
        async with Redis.from_url(url, protocol=2, decode_responses=True) as sentinel:
            yield sentinel

    @pytest.fixture
    async def service(self, sentinel: Any, host: str) -> AsyncIterator[str]:
        """The name of a primary and its replica, which the Sentinel knows."""
        first, second = os.environ["TEST_REDIS_PAIR"].split()
        await follow(second, first, host)
        await until(lambda: is_replicating(second))
        name = f"pair-{uuid4().hex}"
        await sentinel.execute_command(
            "SENTINEL", "MONITOR", name, host, await local_port(first), 1
        )
        await until(lambda: has_replica(sentinel, name))
        yield name
        await sentinel.execute_command("SENTINEL", "REMOVE", name)
        for url in (first, second):
            await promote(url)

    async def test_all_clients_use_the_primary_that_the_sentinel_names(
        self, environment: Environment, sentinel: Any, service: str
    ) -> None:
        silent = "127.0.0.1:1"
        settings = environment.settings(
            REDIS_URL="redis://nowhere.invalid:1/0",
            REDIS_SENTINELS=[silent, os.environ["TEST_REDIS_SENTINEL"]],
            REDIS_SENTINEL_SERVICE=service,
        )
        before = await primary_of(sentinel, service)
        async with running(settings) as backend:
            user = await backend.add_user("admin@shield.test", Role.ADMIN)
            token = backend.token_of(user)
            async with primary(sentinel, service) as redis:
                here = replace(environment, redis=redis)
                await here.publish(shield_event())
            async with sse(backend.http, token=token) as client:
                await client.until(lambda seen: seen.events)
                await until(lambda: has_stored(environment, 1))
                await sentinel.execute_command("SENTINEL", "FAILOVER", service)
                await until(lambda: differs(sentinel, service, before), 30)
                count = len(client.events)
                async with primary(sentinel, service) as redis:
                    here = replace(environment, redis=redis)
                    await until(lambda: accepts_writes(backend, token), 30)
                    await here.publish(shield_event())
                    await client.until(lambda seen: len(seen.events) > count)
                    await until(lambda: has_stored(environment, 2), 30)
                    await until(here.settled)
                assert (await backend.health())["status"] == "healthy"

    async def test_unknown_service_is_explained(self, environment: Environment) -> None:
        settings = environment.settings(
            REDIS_SENTINELS=[os.environ["TEST_REDIS_SENTINEL"]], REDIS_SENTINEL_SERVICE="nothing"
        )
        client = command_client(settings)
        with pytest.raises(REDIS_ERRORS) as caught:
            await client.ping()
        assert explain(caught.value) == "has no primary that one of REDIS_SENTINELS names"
        await client.aclose()


async def has_replica(sentinel: Any, service: str) -> bool:
    """Whether the Sentinel has found a replica that it can promote."""
    found = await sentinel.execute_command("SENTINEL", "REPLICAS", service)
    return any(one["master-link-status"] == "ok" for one in map(dict, map(pairs, found)))


def pairs(found: Any) -> Any:
    """Return pairs of a reply that may be parsed already."""
    return found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)


async def primary_of(sentinel: Any, service: str) -> tuple[str, int]:
    host, port = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    return str(host), int(port)


async def differs(sentinel: Any, service: str, before: tuple[str, int]) -> bool:
    return await primary_of(sentinel, service) != before


@asynccontextmanager
async def primary(sentinel: Any, service: str) -> AsyncIterator[Redis]:
    host, port = await primary_of(sentinel, service)
    async with Redis(host=host, port=port, protocol=2) as redis:
        yield redis


async def has_stored(environment: Environment, count: int) -> bool:
    return len(await environment.stored()) == count
