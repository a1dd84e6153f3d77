"""The command line as operators and the role use it, in a separate process."""

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson
import pytest

from src.config import Settings
from src.services.operations.schema import newest_revision
from tests.support.builders import JWT_SECRET, OWNER, shield_event
from tests.support.cli import BACKEND, cli_environment, run, served
from tests.support.environment import Environment
from tests.support.pgbouncer import through_pgbouncer
from tests.support.server import PASSWORD
from tests.support.sse import sse
from tests.support.waiting import until


class TestMigrate:
    async def test_output_names_the_revisions(self, environment: Environment) -> None:
        newest = newest_revision()
        env = cli_environment(environment, DATABASE_URL=environment.owner_url)
        assert await run(env, "migrate") == (0, f"schema: already at {newest}\n", "")
        await environment.query("DROP SCHEMA public CASCADE")
        await environment.query("CREATE SCHEMA public")
        assert await run(env, "migrate") == (0, f"schema: migrated from nothing to {newest}\n", "")

    async def test_schema_of_a_later_release_is_kept(self, environment: Environment) -> None:
        await environment.query("UPDATE alembic_version SET version_num = 'later'")
        env = cli_environment(environment, DATABASE_URL=environment.owner_url)
        output = "schema: left at later, which a later release has made\n"
        assert await run(env, "migrate") == (0, output, "")
        assert [row[0] for row in await environment.query("SELECT * FROM alembic_version")] == [
            "later"
        ]

    async def test_separate_owner_of_the_tables(self, environment: Environment) -> None:
        await environment.query("DROP SCHEMA public CASCADE")
        await environment.query("CREATE SCHEMA public")
        env = cli_environment(environment)
        owner = urlsplit(environment.owner_url)
        arguments = ("migrate", "--owner", owner.username or "")
        code, out, error = await run(env, *arguments, stdin=f"{owner.password}\n")
        assert (code, out, error) == (
            0,
            f"schema: migrated from nothing to {newest_revision()}\n",
            "",
        )
        assert await run(env, "users", "list") == (0, "", "")
        lacking = await environment.query(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' "
            "AND NOT has_table_privilege($1, to_regclass(tablename), 'SELECT')",
            urlsplit(environment.database_url).username,
        )
        assert lacking == []
        code, out, error = await run(env, *arguments, stdin="wrong\n")
        assert (code, out) == (4, "")
        assert "password authentication failed" in error

    async def test_application_role_cannot_migrate(self, environment: Environment) -> None:
        await environment.query("DROP SCHEMA public CASCADE")
        await environment.query("CREATE SCHEMA public")
        await environment.query("GRANT USAGE ON SCHEMA public TO PUBLIC")
        code, out, error = await run(cli_environment(environment), "migrate")
        assert (code, out) == (4, "")
        assert "permission denied" in error
        assert "Traceback" not in error

    async def test_unreachable_database_is_reported_without_password(
        self, environment: Environment
    ) -> None:
        url = "postgresql://shield:hunter2@127.0.0.1:1/shield"
        code, out, error = await run(cli_environment(environment, DATABASE_URL=url), "migrate")
        assert (code, out) == (4, "")
        assert "DATABASE_URL" in error
        assert "hunter2" not in error
        assert "Traceback" not in error


class TestUsers:
    async def test_add_and_list(self, environment: Environment) -> None:
        env = cli_environment(environment)
        add = ("users", "add", " Admin@Shield.TEST ", "--role", "admin")
        code, out, error = await run(env, *add, stdin=f"{PASSWORD}\nsecond line\n")
        assert (code, out) == (0, "created admin@shield.test\n")
        # The audit entry, in addition to the answer.
        line = orjson.loads(error)
        assert (line["event"], line["action"], line["actor"]) == (
            "audit",
            "user.create",
            "operator",
        )
        ((hashed,),) = await environment.query("SELECT password_hash FROM users")
        assert hashed.startswith("$argon2id$")
        await environment.query(
            "INSERT INTO users VALUES ($1, 'bob@shield.test', '', 'viewer', false)", OWNER
        )
        listed = "admin@shield.test\tadmin\tactive\nbob@shield.test\tviewer\tinactive\n"
        assert await run(env, "users", "list") == (0, listed, "")

    async def test_existing_account_is_kept(self, environment: Environment) -> None:
        env = cli_environment(environment)
        add = ("users", "add", "admin@shield.test", "--role")
        await run(env, *add, "admin", stdin=f"{PASSWORD}\n")
        before = await environment.query("SELECT * FROM users")
        again = await run(env, *add, "viewer", stdin="another password\n")
        assert again == (3, "", "there is an account with this address\n")
        assert await environment.query("SELECT * FROM users") == before

    @pytest.mark.parametrize(
        ("email", "password", "field"),
        [
            ("no address", PASSWORD, "email"),
            ("", PASSWORD, "email"),
            ("a@b.test", "short", "password"),
            ("a@b.test", "", "password"),
            ("a@b.test", "x" * 1025, "password"),
            ("quite.unusual.name@b.test", "quite.unusual.name1", "too easy to guess"),
            ("a@b.test", b"latin-1 p\xe4ssword\n", "password"),
        ],
    )
    async def test_invalid_input_is_reported(
        self, environment: Environment, email: str, password: str | bytes, field: str
    ) -> None:
        arguments = ("users", "add", email, "--role", "viewer")
        # As in a container, which has no locale settings.
        code, out, error = await run(cli_environment(environment), *arguments, stdin=password)
        assert (code, out) == (2, "")
        assert field in error
        assert "Traceback" not in error
        assert await environment.query("SELECT * FROM users") == []

    async def test_unknown_role(self, environment: Environment) -> None:
        arguments = ("users", "add", "a@b.test", "--role", "root")
        code, _, error = await run(cli_environment(environment), *arguments)
        assert code == 2
        assert "--role" in error


class TestSettings:
    async def test_valid_settings(self, environment: Environment) -> None:
        env = cli_environment(environment)
        assert await run(env, "settings", "check") == (0, "settings: all right\n", "")

    async def test_transaction_pool_is_refused(self, environment: Environment) -> None:
        env = cli_environment(
            environment, DATABASE_URL=through_pgbouncer(environment, "TRANSACTION")
        )
        code, out, error = await run(env, "settings", "check")
        assert (code, out) == (2, "")
        assert "pool_mode = session" in error
        env = cli_environment(environment, DATABASE_URL=through_pgbouncer(environment, "SESSION"))
        assert await run(env, "settings", "check") == (0, "settings: all right\n", "")

    async def test_unreachable_database_is_no_settings_error(
        self, environment: Environment
    ) -> None:
        env = cli_environment(environment, DATABASE_URL="postgresql://test:test@127.0.0.1:1/test")
        assert await run(env, "settings", "check") == (0, "settings: all right\n", "")

    async def test_every_command_reports_all_invalid_settings(
        self, environment: Environment
    ) -> None:
        env = cli_environment(environment, PORT="http", JWT_SECRET="hunter2", REDIS_URL="hunter2")
        for command in (("settings", "check"), ("migrate",), ("users", "list"), ("serve",)):
            code, out, error = await run(env, *command)
            assert (code, out) == (2, "")
            assert all(f"  {name}: " in error for name in ("PORT", "JWT_SECRET", "REDIS_URL"))
            assert "hunter2" not in error
            assert "Traceback" not in error


async def log_in(http: httpx.AsyncClient) -> str:
    form = {"username": "admin@shield.test", "password": PASSWORD}
    token: str = (await http.post("/auth/token", data=form)).json()["access_token"]
    return token


class TestServe:
    @pytest.fixture
    async def env(self, environment: Environment) -> dict[str, str]:
        env = cli_environment(environment)
        add = ("users", "add", "admin@shield.test", "--role", "admin")
        await run(env, *add, stdin=f"{PASSWORD}\n")
        return env

    async def test_sigterm_ends_streams_and_process(
        self, environment: Environment, env: dict[str, str]
    ) -> None:
        async with served(env) as (process, http):
            token = await log_in(http)
            async with sse(http, token=token) as one, sse(http, token=token) as other:
                ids = [str(i) for i in await environment.publish(shield_event(), shield_event())]
                await one.until(lambda it: it.ids == ids)
                process.send_signal(signal.SIGTERM)
                for client in (one, other):
                    await client.until_ended()
                    assert client.ids == ids
                    assert client.frames[-1].retry
            async with asyncio.timeout(10):
                _, error = await process.communicate()
            assert process.returncode == 0
            assert error == b""

    async def test_sigusr1_ends_the_streams_and_not_the_process(
        self, environment: Environment, env: dict[str, str]
    ) -> None:
        async with served(env) as (process, http):
            token = await log_in(http)
            async with sse(http, token=token) as client:
                ids = [str(i) for i in await environment.publish(shield_event())]
                await client.until(lambda it: it.ids == ids)
                process.send_signal(signal.SIGUSR1)
                await client.until_ended()
                assert client.comments[-1] == "maintenance: reconnect with the last id"
                assert (client.frames[-1].retry or 0) >= 30_000
            assert (await http.get("/health/ready")).status_code == 200
            async with sse(http, token=token, after=ids[-1]) as client:
                more = [str(i) for i in await environment.publish(shield_event())]
                await client.until(lambda it: it.ids == more)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                await process.communicate()
            assert process.returncode == 0

    async def test_output_is_json_without_secrets(
        self, environment: Environment, env: dict[str, str]
    ) -> None:
        # Redis and PostgreSQL of the tests may have no password: a wrong one serves the purpose.
        parts = urlsplit(environment.redis_url)
        redis_url = urlunsplit(parts._replace(netloc=f":hunter2@{parts.hostname}:1"))
        async with served(env | {"REDIS_URL": redis_url, "LOG_LEVEL": "DEBUG"}) as (process, http):
            token = await log_in(http)
            form = {"username": "admin@shield.test", "password": "hunter2-guess"}
            await http.post("/auth/token", data=form)
            headers = {"Authorization": f"Bearer {token}"}
            await http.get("/auth/me", headers=headers)
            ticket = (await http.post("/auth/ticket", headers=headers)).json()["ticket"]
            await http.get(f"/events?ticket={ticket}")
            await http.post("/auth/refresh", json={"refresh_token": "hunter2.hunter2"})
            await http.get("/auth/me", headers={"Cookie": "__Host-ag_ui_access=hunter2"})
            await http.get("/nothing?token=hunter2")
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                out, error = await process.communicate()
        assert error == b""
        lines = [orjson.loads(line) for line in out.splitlines()]
        assert {"event", "level", "timestamp", "logger"} <= set.intersection(*map(set, lines))
        events = [line["event"] for line in lines]
        assert "backend_started" in events
        assert "backend_stopped" in events
        requests = [line for line in lines if line["event"] == "request"]
        assert all(line["request_id"] for line in requests)
        for secret in ("hunter2", PASSWORD, JWT_SECRET, token, token.split(".")[2], ticket):
            assert secret.encode() not in out

    async def test_audit_lines_are_written_at_any_level(self, env: dict[str, str]) -> None:
        async with served(env | {"LOG_LEVEL": "ERROR"}) as (process, http):
            await log_in(http)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                out, _ = await process.communicate()
        events = {orjson.loads(line)["event"] for line in out.splitlines()}
        assert events == {"audit", "audit_checkpoint"}

    async def test_start_with_uvicorn_and_env_file(
        self, env: dict[str, str], tmp_path: Path
    ) -> None:
        """With the settings in .env and uvicorn's own command."""
        known = {name: value for name, value in env.items() if name in Settings.model_fields}
        (tmp_path / ".env").write_text("".join(f"{n}={v}\n" for n, v in known.items()))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "src.main:app", "--port", str(port)),
            cwd=tmp_path,
            env={"PATH": env["PATH"], "PYTHONPATH": str(BACKEND)},
            stdout=PIPE,
            stderr=PIPE,
        )
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

            async def healthy() -> bool:
                assert process.returncode is None
                try:
                    body = (await http.get("/health")).json()
                except httpx.TransportError:
                    return False
                return bool(body["status"] == "healthy")

            await until(healthy, 30)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(15):
            await process.communicate()
