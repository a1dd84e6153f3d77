"""Manage accounts."""

import argparse
import sys
from collections.abc import Awaitable, Callable
from uuid import UUID

from src.commands.admin_command import run_admin_command
from src.commands.output import echo
from src.composition.accounts import Accounts
from src.config import Settings
from src.models.account import AccountFilter, NewAccount
from src.models.permissions import Role
from src.services.audit.actors import OPERATOR
from src.services.auth.email_addresses import normalise_email

# Accounts per query.
_PAGE = 200
_ROLES = [role.value for role in Role]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    users = commands.add_parser("users", help="manage accounts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add = users.add_parser("add", help="make an account; the password comes on standard input")
    add.add_argument("email")
    add.add_argument("--role", required=True, choices=_ROLES)
    add.add_argument("--name")
    add.set_defaults(run=_add)
    listing = users.add_parser("list", help="list accounts: address, role, active or inactive")
    listing.add_argument("--search", default="", help="a part of the address or the name")
    listing.set_defaults(run=_list)
    role = _add_user_command(users, "role", "give an account another role", _set_role)
    role.add_argument("role", choices=_ROLES)
    _add_user_command(users, "deactivate", "let an account in no more, at once", _deactivate)
    _add_user_command(users, "activate", "let an account in again", _activate)
    _add_user_command(users, "unlock", "end the wait after too many failed logins", _unlock)
    _add_user_command(
        users, "password", "set the password that comes on standard input", _set_password
    )
    _add_user_command(
        users, "reset-link", "print a link with which a password can be set once", _reset_link
    )
    _add_user_command(
        users, "mfa-reset", "remove the second factor of somebody who lost it", _mfa_reset
    )
    _add_user_command(users, "end-sessions", "log an account out everywhere", _end_sessions)


UserCommand = Callable[[Accounts, UUID, argparse.Namespace], Awaitable[str]]


def _add_user_command(
    users: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_text: str,
    command: UserCommand,
) -> argparse.ArgumentParser:
    """Add a command on one account.

    Args:
        users: The parser of the command `users`.
        name: The name of the command.
        help_text: Its help text.
        command: The command. It returns the text to print.
    """

    def run(settings: Settings, options: argparse.Namespace) -> int:
        async def run_for_user(accounts: Accounts) -> None:
            user_id = await accounts.service.id_of(normalise_email(options.email))
            echo(await command(accounts, user_id, options))

        return run_admin_command(settings, run_for_user)

    parser = users.add_parser(name, help=help_text)
    parser.add_argument("email")
    parser.set_defaults(run=run)
    return parser


def _password() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _add(settings: Settings, options: argparse.Namespace) -> int:
    password = _password()

    async def command(accounts: Accounts) -> None:
        new = NewAccount(
            email=options.email, password=password, role=Role(options.role), name=options.name
        )
        account = await accounts.service.create(OPERATOR, new)
        echo(f"created {account.email}")

    return run_admin_command(settings, command)


def _list(settings: Settings, options: argparse.Namespace) -> int:
    async def command(accounts: Accounts) -> None:
        criteria, cursor = AccountFilter(search=options.search), None
        while True:
            page = await accounts.service.page(criteria, cursor, _PAGE)
            for account in page.items:
                echo(
                    f"{account.email}\t{account.role}\t{'active' if account.active else 'inactive'}"
                )
            if (cursor := page.next_cursor) is None:
                return

    return run_admin_command(settings, command)


async def _set_role(accounts: Accounts, user_id: UUID, options: argparse.Namespace) -> str:
    account = await accounts.service.set_role(OPERATOR, user_id, Role(options.role))
    return f"{account.email} is {account.role}"


async def _deactivate(accounts: Accounts, user_id: UUID, _options: argparse.Namespace) -> str:
    account = await accounts.service.set_active(OPERATOR, user_id, active=False)
    return f"{account.email} is inactive"


async def _activate(accounts: Accounts, user_id: UUID, _options: argparse.Namespace) -> str:
    account = await accounts.service.set_active(OPERATOR, user_id, active=True)
    return f"{account.email} is active"


async def _unlock(accounts: Accounts, user_id: UUID, _options: argparse.Namespace) -> str:
    account = await accounts.service.unlock(OPERATOR, user_id)
    return f"{account.email} is not locked"


async def _set_password(accounts: Accounts, user_id: UUID, options: argparse.Namespace) -> str:
    await accounts.service.set_password(OPERATOR, user_id, _password())
    return f"{options.email} has a new password"


async def _reset_link(accounts: Accounts, user_id: UUID, _options: argparse.Namespace) -> str:
    return (await accounts.password_resets.create_reset_link(OPERATOR, user_id)).link


async def _mfa_reset(accounts: Accounts, user_id: UUID, options: argparse.Namespace) -> str:
    await accounts.service.remove_second_factor(OPERATOR, user_id)
    return f"{options.email} has no second factor"


async def _end_sessions(accounts: Accounts, user_id: UUID, options: argparse.Namespace) -> str:
    await accounts.service.end_sessions(OPERATOR, user_id)
    return f"{options.email} is logged out"
