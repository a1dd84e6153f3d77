"""Real Redis and PostgreSQL, of which every test gets a part of its own."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from src.services import event_tail, redis_consumer
from src.services.schema_service import migrate
from src.utils.database import Database
from tests.support.builders import settings_of
from tests.support.gateway import Gateway
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running
from tests.support.world import World


def _required(name: str, what: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set: these tests need {what}; script/test starts one")
    return value


@pytest.fixture(autouse=True)
def _quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is stopped first waits for what it has asked of Redis."""
    for module in (event_tail, redis_consumer):
        monkeypatch.setattr(module, "BLOCK_MS", 50)


@pytest.fixture(scope="session")
def redis_url() -> str:
    return _required("TEST_REDIS_URL", "a Redis")


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    """The LiteLLM gateway with the tools, the orchestrator and the model behind it."""
    names = ("GATEWAY_URL", "GATEWAY_KEY", "ORCHESTRATOR_URL", "TOOLS_URL", "MODEL_URL")
    return Gateway(*(_required(f"TEST_{name}", "a LiteLLM gateway") for name in names))


def _named(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _administer(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template() -> Iterator[tuple[str, str]]:
    """The server's address and the name of a migrated database to copy."""
    url = _required("TEST_DATABASE_URL", "a PostgreSQL whose user may create databases")
    name = f"template_{uuid4().hex}"

    async def prepare() -> None:
        await _administer(url, f"CREATE DATABASE {name}")
        database = Database(settings_of(DATABASE_URL=_named(url, name)), statement_timeout=None)
        await migrate(database)
        await database.close()

    asyncio.run(prepare())
    yield url, name
    asyncio.run(_administer(url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def database_url(template: tuple[str, str]) -> AsyncIterator[str]:
    """A migrated, empty database of the test's own."""
    url, original = template
    name = f"test_{uuid4().hex}"
    await _administer(url, f"CREATE DATABASE {name} TEMPLATE {original}")
    yield _named(url, name)
    await _administer(url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def world(redis_url: str, database_url: str) -> AsyncIterator[World]:
    """A stream and a database of the test's own."""
    redis = Redis.from_url(redis_url, protocol=2)
    database = await asyncpg.connect(database_url)
    name = f"test:{uuid4().hex}"
    world = World(redis_url, database_url, name, redis, database)
    yield world
    await redis.delete(name)
    await world.forget_runs()
    await redis.aclose()
    await database.close()


@pytest.fixture
async def redis_proxy(redis_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(redis_url, 6379) as proxy:
        yield proxy


@pytest.fixture
async def database_proxy(database_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(database_url, 5432) as proxy:
        yield proxy


@pytest.fixture
async def backend(world: World) -> AsyncIterator[Backend]:
    """One instance of the application, healthy."""
    async with running(world.settings()) as instance:
        yield instance
