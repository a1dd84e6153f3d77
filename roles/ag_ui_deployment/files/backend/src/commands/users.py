"""Manage accounts."""

import argparse
import asyncio
import sys

from src.commands.answers import EXIT_BAD_INPUT, EXIT_EXISTS, fail, say
from src.config import Settings
from src.models.role import Role
from src.services.passwords import PasswordRejectedError
from src.services.user_service import EmailRejectedError, UserExistsError, UserService
from src.utils.database import Database


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    users = commands.add_parser("users", help="manage accounts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add = users.add_parser("add", help="make an account; the password comes on standard input")
    add.add_argument("email")
    add.add_argument("--role", required=True, choices=[role.value for role in Role])
    add.set_defaults(run=_add_user)
    listing = users.add_parser("list", help="list accounts: address, role, active or inactive")
    listing.set_defaults(run=_list_users)


def _add_user(settings: Settings, options: argparse.Namespace) -> int:
    password = sys.stdin.readline().rstrip("\r\n")

    async def run() -> int:
        database = Database(settings)
        try:
            user = await UserService(database).add(options.email, password, Role(options.role))
        except EmailRejectedError as error:
            return fail(EXIT_BAD_INPUT, f"email: {error}")
        except PasswordRejectedError as error:
            return fail(EXIT_BAD_INPUT, f"password (on standard input): {error}")
        except UserExistsError as error:
            return fail(EXIT_EXISTS, f"exists {error}")
        finally:
            await database.close()
        say(f"created {user.email}")
        return 0

    return asyncio.run(run())


def _list_users(settings: Settings, _options: argparse.Namespace) -> None:
    async def run() -> None:
        database = Database(settings)
        try:
            for user in await UserService(database).all_users():
                say(f"{user.email}\t{user.role}\t{'active' if user.active else 'inactive'}")
        finally:
            await database.close()

    asyncio.run(run())
