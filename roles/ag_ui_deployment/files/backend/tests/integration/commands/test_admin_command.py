"""Administration by the command line, in this process; test_cli.py covers it as a process."""

import asyncio
import io
from collections.abc import Awaitable, Callable

import pyotp
import pytest

from src.cli import main
from src.commands import admin_command
from tests.support.accounts import TOO_LONG, ask_login, bearer, is_logged_in, log_in_from, login
from tests.support.cli import cli_environment
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import PASSWORD, Backend, running

ADMIN, ALICE = "admin@shield.test", "alice@shield.test"
NEW = "another staple for the horse"

Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in this process; returns exit code, standard output and standard error."""
    for name, value in cli_environment(environment, PUBLIC_URL="https://shield.test/app").items():
        monkeypatch.setenv(name, value)
    # Keeps the logging configuration of the tests.
    monkeypatch.setattr(admin_command, "log_to_stderr", lambda: None)

    async def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = await asyncio.to_thread(main, arguments)
        out, error = capsys.readouterr()
        answer = "".join(line for line in out.splitlines(keepends=True) if "event=" not in line)
        return code, answer, error

    return run


async def test_account_commands(
    backend: Backend, environment: Environment, command: Command
) -> None:
    for email, role in ((ADMIN, "admin"), (ALICE, "viewer")):
        add = ("users", "add", email, "--role", role, "--name", role.title())
        assert (await command(*add, stdin=f"{PASSWORD}\n"))[0] == 0
    tokens = await login(backend, ALICE)
    await environment.query("UPDATE login_sources SET failures = 9, locked_until = now() + '1 day'")

    async def users(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        return await command("users", *arguments, stdin=stdin)

    done = [
        await users("unlock", f" {ALICE.upper()} "),
        await users("role", ALICE, "contributor"),
        await users("list", "--search", "VIEW"),
    ]
    assert done == [
        (0, f"{ALICE} is not locked\n", ""),
        (0, f"{ALICE} is contributor\n", ""),
        (0, f"{ALICE}\tcontributor\tactive\n", ""),
    ]
    assert await is_logged_in(backend, tokens)
    assert (await users("end-sessions", ALICE))[0] == 0
    assert not await is_logged_in(backend, tokens)
    assert (await users("password", ALICE, stdin=f"{NEW}\n"))[0] == 0
    await login(backend, ALICE, NEW)
    _, link, _ = await users("reset-link", ALICE)
    assert link.startswith("https://shield.test/app/reset-password#token=")
    body = {"token": link.strip().partition("#token=")[2], "password": PASSWORD}
    assert (await backend.http.post("/auth/password/reset", json=body)).status_code == 204
    tokens = await login(backend, ALICE)
    assert (await users("deactivate", ALICE))[0] == 0
    assert not await is_logged_in(backend, tokens)
    assert (await ask_login(backend, ALICE)).status_code == 401
    assert await users("activate", ALICE) == (0, f"{ALICE} is active\n", "")
    tokens = await login(backend, ALICE)
    headers = bearer(tokens["access_token"])
    begun = await backend.http.post("/auth/mfa/setup", json={"password": PASSWORD}, headers=headers)
    code = {"code": pyotp.TOTP(begun.json()["secret"]).now()}
    confirmed = await backend.http.post("/auth/mfa/confirm", json=code, headers=headers)
    assert confirmed.status_code == 200
    assert (await ask_login(backend, ALICE)).json()["type"].endswith(":second-factor-required")
    assert await users("mfa-reset", ALICE) == (0, f"{ALICE} has no second factor\n", "")
    assert not await is_logged_in(backend, tokens)
    await login(backend, ALICE)
    refused = [
        await users("deactivate", ADMIN),
        await users("role", ADMIN, "viewer"),
        await users("unlock", "nobody@shield.test"),
        await users("password", ALICE, stdin="alice-shield-1\n"),
    ]
    assert [code for code, _, _ in refused] == [6, 6, 6, 2]
    assert all(out == "" and "Traceback" not in error for _, out, error in refused)
    assert "no active administrator" in refused[0][2]
    assert "password" in refused[3][2]
    rows = await environment.query("SELECT action, actor FROM audit_log ORDER BY seq")
    by_operator = [row["action"] for row in rows if row["actor"] == "operator"]
    assert by_operator == [
        "user.create",
        "user.create",
        "unlock",
        "role.change",
        "logout",
        "password.change",
        "password.reset",
        "user.deactivate",
        "user.activate",
        "mfa.change",
    ]


@pytest.mark.parametrize("way", ["unlock", "password"])
async def test_unlocked_account_is_not_rate_limited(
    environment: Environment, command: Command, way: str
) -> None:
    async with running(environment.settings(RATE_LOGIN_PER_ACCOUNT="2/hour")) as backend:
        await backend.add_user(ALICE)
        for n in range(2):
            await log_in_from(backend, f"198.51.{n}.1", ALICE, TOO_LONG)
        check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
        done = await command("users", way, ALICE, stdin=f"{NEW}\n")
        assert done[0] == 0
        await login(backend, ALICE, PASSWORD if way == "unlock" else NEW)


async def test_workspace_commands(backend: Backend, command: Command) -> None:
    await backend.add_user(ALICE)

    async def workspaces(*arguments: str) -> tuple[int, str, str]:
        return await command("workspaces", *arguments)

    assert await workspaces("add", "red") == (0, "created red\n", "")
    assert (await workspaces("set-member", "red", ALICE, "contributor"))[0] == 0
    answers = [
        await workspaces("list"),
        await workspaces("members", "red"),
        await workspaces("add", "red"),
        await workspaces("add", "not a name"),
        await workspaces("delete", "red"),
        await workspaces("set-member", "default", ALICE, "admin"),
        await workspaces("members", "none"),
    ]
    assert [code for code, _, _ in answers] == [0, 0, 3, 2, 6, 6, 6]
    assert answers[0][1] == "default\t0\nred\t1\n"
    assert answers[1][1] == f"{ALICE}\tcontributor\n"
    assert "Traceback" not in "".join(error for _, _, error in answers)
    assert (await workspaces("remove-member", "red", ALICE))[0] == 0
    assert await workspaces("delete", "red") == (0, "deleted red\n", "")
