"""PostgreSQL over TLS, as the URL requires, while a password changes, and the primary of several servers."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from src.utils.database import DATABASE_ERRORS, Database, is_outage
from src.utils.outages import explain
from tests.support.environment import Environment
from tests.support.proxy import TcpProxy
from tests.support.waiting import until


async def is_encrypted(environment: Environment, host: str, mode: str, authority: str) -> bool:
    parts = urlsplit(environment.database_url)
    login = parts.netloc.rpartition("@")[0]
    url = urlunsplit(
        parts._replace(
            netloc=f"{login}@{host}:{parts.port}", query=f"sslmode={mode}" if mode else ""
        )
    )
    database = Database(environment.settings(DATABASE_URL=url, DATABASE_CA=authority))
    try:
        async with database.engine.connect() as connection:
            found = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            return bool((await connection.execute(text(found))).scalar())
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("host", "mode", "with_ca", "encrypted"),
    [
        ("127.0.0.1", "", False, True),
        ("127.0.0.1", "disable", False, False),
        ("127.0.0.1", "prefer", False, True),
        ("127.0.0.1", "require", False, True),
        ("127.0.0.1", "verify-ca", True, True),
        ("localhost", "verify-full", True, True),
    ],
)
async def test_sslmode(  # noqa: PLR0913 - test parameters
    *,
    environment: Environment,
    authority: str,
    host: str,
    mode: str,
    with_ca: bool,
    encrypted: bool,
) -> None:
    assert await is_encrypted(environment, host, mode, authority if with_ca else "") is encrypted


@pytest.mark.parametrize(
    ("host", "mode", "with_ca"),
    [
        ("localhost", "verify-full", False),
        ("localhost", "verify-ca", False),
        # The certificate does not have this name.
        ("127.0.0.1", "verify-full", True),
    ],
)
async def test_untrusted_certificate_is_an_outage_with_its_reason(
    *, environment: Environment, authority: str, host: str, mode: str, with_ca: bool
) -> None:
    with pytest.raises(DATABASE_ERRORS) as caught:
        await is_encrypted(environment, host, mode, authority if with_ca else "")
    assert is_outage(caught.value)
    assert "certificate that is not trusted" in explain(caught.value)


async def test_either_password_logs_in_while_it_is_changed(environment: Environment) -> None:
    parts = urlsplit(environment.database_url)
    role, host = f"changed_{uuid4().hex}", parts.netloc.rpartition("@")[2]
    await environment.query(f"CREATE ROLE {role} LOGIN PASSWORD 'former'")
    url = urlunsplit(parts._replace(netloc=f"{role}:new@{host}"))
    settings = environment.settings(DATABASE_URL=url, DATABASE_PREVIOUS_PASSWORD="former")
    database, without = Database(settings), Database(environment.settings(DATABASE_URL=url))
    try:
        await database.ping()
        with pytest.raises(DATABASE_ERRORS):
            await without.ping()
        await environment.query(f"ALTER ROLE {role} PASSWORD 'new'")
        # The open connection is kept, and a new one uses the new password.
        async with database.engine.connect() as first, database.engine.connect() as second:
            for connection in (first, second):
                assert await connection.scalar(text("SELECT current_user")) == role
        await environment.query(f"ALTER ROLE {role} PASSWORD 'neither'")
        with pytest.raises(DATABASE_ERRORS, match="password authentication failed"):
            async with database.engine.connect(), database.engine.connect():
                await database.ping()
    finally:
        await database.close()
        await without.close()
        await environment.query(f"DROP ROLE {role}")


def endpoint(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def is_standby(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("SELECT pg_is_in_recovery()"))
    finally:
        await connection.close()


async def write(database: Database) -> int:
    """Write a row; return the port of the server that stored it, inside its container."""
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO written DEFAULT VALUES"))
        return int((await session.execute(text("SELECT current_setting('port')"))).scalar_one())


class TestSeveralServers:
    @pytest.fixture
    async def pair(self) -> AsyncIterator[tuple[str, str]]:
        """A primary and its standby. The test promotes the latter, which cannot be undone."""
        first, second = os.environ["TEST_DATABASE_PAIR"].split()
        if not await is_standby(second):
            pytest.fail(
                "the standby is a primary since an earlier run; script/test starts a new one"
            )
        await execute(first, "CREATE TABLE IF NOT EXISTS written (id serial PRIMARY KEY)")
        yield first, second
        await execute(first, "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")

    async def test_pool_follows_the_primary(
        self, environment: Environment, pair: tuple[str, str]
    ) -> None:
        """The former primary goes on, but rejects writes; then it is gone."""
        former, new = pair
        async with TcpProxy(former, 5432) as proxy:
            # The URL names the standby, and a server that does not exist is passed over.
            settings = environment.settings(
                DATABASE_URL=new, DATABASE_STANDBYS=["127.0.0.1:1", endpoint(proxy.url)]
            )
            database = Database(settings)
            assert await write(database) == 5434
            await execute(
                former,
                "ALTER SYSTEM SET default_transaction_read_only = on",
                "SELECT pg_reload_conf()",
            )
            await until(lambda: rejects_writes(database))
            with pytest.raises(DATABASE_ERRORS) as caught:
                await write(database)
            assert is_outage(caught.value)
            assert (
                explain(caught.value) == "has no server that accepts writes: see DATABASE_STANDBYS"
            )
            await execute(new, "SELECT pg_promote()")
            assert await write(database) == 5435
            # Connections go to the last primary first, not to those before it in the list.
            await proxy.refuse()
            await database.engine.dispose()
            assert await write(database) == 5435
            await database.close()


async def rejects_writes(database: Database) -> bool:
    """Whether the pooled connection rejects a write; PostgreSQL reads new settings after a moment."""
    try:
        await write(database)
    except DATABASE_ERRORS as error:
        return is_outage(error)
    return False
