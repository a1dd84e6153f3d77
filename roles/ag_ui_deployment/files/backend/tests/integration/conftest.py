"""Fixtures for real Redis and PostgreSQL servers; each test gets its own stream and database."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
import uvloop
from redis.asyncio import Redis

from src.models.permissions import Role
from src.services import redis_consumer
from src.services.events import stream_tailer
from src.services.operations.migration import migrate
from src.utils.database import Database
from tests.support.audit_log import Log
from tests.support.builders import settings_of
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.official_client import OfficialClients, official_clients
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running


def _required(name: str, what: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set: these tests need {what}; script/test starts one")
    return value


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Use the event loop of the deployed service: its errors of closed connections differ."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _short_blocking_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the blocking reads, which a reader finishes before it stops."""
    for module in (stream_tailer, redis_consumer):
        monkeypatch.setattr(module, "BLOCK_MS", 50)


@pytest.fixture(scope="session")
def redis_url() -> str:
    return _required("TEST_REDIS_URL", "a Redis")


@pytest.fixture(scope="session")
def authority() -> str:
    """The CA certificate of Redis and PostgreSQL, in PEM format."""
    return Path(_required("TEST_CA_FILE", "an authority")).read_text()


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    """The LiteLLM gateway with the tools, the orchestrator and the model behind it."""
    names = ("GATEWAY_URL", "GATEWAY_KEY", "ORCHESTRATOR_URL", "TOOLS_URL", "MODEL_URL")
    return Gateway(*(_required(f"TEST_{name}", "a LiteLLM gateway") for name in names))


class Template(NamedTuple):
    """A migrated template database and the role of the application; `url` has the owner's role."""

    url: str
    name: str
    role: str

    def owner_url_of(self, name: str) -> str:
        """Return the URL of a database for the role that owns it."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def application_url_of(self, name: str) -> str:
        """Return the URL for the application's role, which has only the rights it needs."""
        host = urlsplit(self.url).netloc.rpartition("@")[2]
        parts = urlsplit(self.owner_url_of(name))
        return urlunsplit(parts._replace(netloc=f"{self.role}:application@{host}"))


async def _administer(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    url = _required("TEST_DATABASE_URL", "a PostgreSQL whose user may create databases")
    suffix = uuid4().hex
    created = Template(url, f"template_{suffix}", f"application_{suffix}")

    async def prepare() -> None:
        await _administer(
            url,
            f"CREATE ROLE {created.role} LOGIN PASSWORD 'application'",
            f"CREATE DATABASE {created.name}",
        )
        settings = settings_of(DATABASE_URL=created.owner_url_of(created.name))
        database = Database(settings, statement_timeout=None)
        await migrate(database, created.role)
        await database.close()

    asyncio.run(prepare())
    yield created
    asyncio.run(
        _administer(url, f"DROP DATABASE {created.name} WITH (FORCE)", f"DROP ROLE {created.role}")
    )


@pytest.fixture
async def database_name(template: Template) -> AsyncIterator[str]:
    """A new database, migrated and empty."""
    name = f"test_{uuid4().hex}"
    await _administer(template.url, f"CREATE DATABASE {name} TEMPLATE {template.name}")
    yield name
    await _administer(template.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def environment(
    redis_url: str, template: Template, database_name: str
) -> AsyncIterator[Environment]:
    """A stream and a database of its own for the test."""
    redis = Redis.from_url(redis_url, protocol=2)
    database_url, owner_url = (
        address(database_name) for address in (template.application_url_of, template.owner_url_of)
    )
    database = await asyncpg.connect(owner_url)
    name = f"test:{uuid4().hex}"
    environment = Environment(redis_url, database_url, owner_url, name, redis, database)
    yield environment
    await redis.delete(name)
    await environment.forget_runs()
    await redis.aclose()
    await database.close()


@pytest.fixture
async def redis_proxy(redis_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(redis_url, 6379) as proxy:
        yield proxy


@pytest.fixture
async def database_proxy(environment: Environment) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(environment.database_url, 5432) as proxy:
        yield proxy


@pytest.fixture
async def backend(environment: Environment) -> AsyncIterator[Backend]:
    """A healthy instance of the application."""
    async with running(environment.settings()) as instance:
        yield instance


@pytest.fixture
async def token(backend: Backend) -> str:
    """The access token of a contributor."""
    return backend.token_of(await backend.add_user("alice@shield.test", Role.CONTRIBUTOR))


@pytest.fixture
async def log(environment: Environment) -> AsyncIterator[Log]:
    """An audit log in which every new entry makes a checkpoint due."""
    one = Log(environment, environment.settings(AUDIT_CHECKPOINT_ENTRIES=1))
    yield one
    await one.database.close()


@pytest.fixture
async def clients() -> AsyncIterator[OfficialClients]:
    """The official AG-UI clients."""
    async with official_clients() as started:
        yield started
