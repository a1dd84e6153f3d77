"""PostgreSQL over TLS, as the URL requires, and with either password while it is being changed."""

from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from sqlalchemy import text

from src.utils.database import DATABASE_ERRORS, Database, is_outage
from src.utils.outages import explain
from tests.support.environment import Environment


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
