"""Command line of the image: serve, migrate, manage users, check the settings."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

import uvicorn

from src.config import Settings, SettingsError, load_settings
from src.models.user import Role
from src.services.passwords import PasswordRejectedError
from src.services.schema_service import migrate
from src.services.user_service import EmailRejectedError, UserExistsError, UserService
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.garbage import collect_rarely
from src.utils.logger import configure_logging
from src.utils.sockets import listening_socket

EXIT_BAD_INPUT = 2
EXIT_EXISTS = 3
EXIT_UNAVAILABLE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings()
    except SettingsError as error:
        return _fail(EXIT_BAD_INPUT, str(error))
    try:
        return int(options.run(settings, options) or 0)
    except DATABASE_ERRORS as error:
        return _fail(EXIT_UNAVAILABLE, f"PostgreSQL (DATABASE_URL) cannot be used: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m src.cli", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the server on HOST and PORT")
    serve.set_defaults(run=_serve)

    schema = commands.add_parser("migrate", help="bring the database schema up to date")
    schema.set_defaults(run=_migrate)

    users = commands.add_parser("users", help="manage accounts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add = users.add_parser("add", help="make an account; the password comes on standard input")
    add.add_argument("email")
    add.add_argument("--role", required=True, choices=[role.value for role in Role])
    add.set_defaults(run=_add_user)
    listing = users.add_parser("list", help="list accounts: address, role, active or inactive")
    listing.set_defaults(run=_list_users)

    settings = commands.add_parser("settings", help="look at the settings").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = settings.add_parser("check", help="name every wrong setting, change nothing")
    check.set_defaults(run=_check_settings)
    return parser


def _serve(settings: Settings, _options: argparse.Namespace) -> int:
    # When it has shut down, the server raises once more the signal that asked for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        "src.main:app",
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        proxy_headers=True,
        server_header=False,
        timeout_graceful_shutdown=settings.SHUTDOWN_GRACE_SECONDS,
    )
    try:
        listener = listening_socket(settings.HOST, settings.PORT)
    except OSError as error:
        return _fail(
            EXIT_UNAVAILABLE,
            f"HOST and PORT: cannot listen on {settings.HOST}:{settings.PORT}: {error}",
        )
    config.load()
    collect_rarely()
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else EXIT_UNAVAILABLE


def _migrate(settings: Settings, _options: argparse.Namespace) -> None:
    configure_logging("WARNING")

    async def run() -> None:
        database = Database(settings, statement_timeout=None)
        try:
            before, after = await migrate(database)
        finally:
            await database.close()
        if before == after:
            _say(f"schema: already at {after}")
        else:
            _say(f"schema: migrated from {before or 'nothing'} to {after}")

    asyncio.run(run())


def _add_user(settings: Settings, options: argparse.Namespace) -> int:
    password = sys.stdin.readline().rstrip("\r\n")

    async def run() -> int:
        database = Database(settings)
        try:
            user = await UserService(database).add(options.email, password, Role(options.role))
        except EmailRejectedError as error:
            return _fail(EXIT_BAD_INPUT, f"email: {error}")
        except PasswordRejectedError as error:
            return _fail(EXIT_BAD_INPUT, f"password (on standard input): {error}")
        except UserExistsError as error:
            return _fail(EXIT_EXISTS, f"exists {error}")
        finally:
            await database.close()
        _say(f"created {user.email}")
        return 0

    return asyncio.run(run())


def _list_users(settings: Settings, _options: argparse.Namespace) -> None:
    async def run() -> None:
        database = Database(settings)
        try:
            for user in await UserService(database).all_users():
                _say(f"{user.email}\t{user.role}\t{'active' if user.active else 'inactive'}")
        finally:
            await database.close()

    asyncio.run(run())


def _check_settings(_settings: Settings, _options: argparse.Namespace) -> None:
    _say("settings: all right")


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the answer of a command


def _fail(code: int, text: str) -> int:
    print(text, file=sys.stderr)  # noqa: T201 - the answer of a command
    return code


if __name__ == "__main__":
    sys.exit(main())
