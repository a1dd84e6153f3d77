"""Manage workspaces and their members."""

import argparse
from collections.abc import Awaitable, Callable

from src.commands.admin_command import run_admin_command
from src.commands.output import echo
from src.composition.accounts import Accounts
from src.config import Settings
from src.models.permissions import Role
from src.models.workspace import NewWorkspace
from src.services.audit.actors import OPERATOR
from src.services.auth.email_addresses import normalise_email

WorkspaceCommand = Callable[[Accounts, argparse.Namespace], Awaitable[None]]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    workspaces = commands.add_parser(
        "workspaces", help="manage workspaces and their members"
    ).add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, help_text: str, action: WorkspaceCommand, *arguments: str
    ) -> argparse.ArgumentParser:
        def run(settings: Settings, options: argparse.Namespace) -> int:
            return run_admin_command(settings, lambda accounts: action(accounts, options))

        parser = workspaces.add_parser(name, help=help_text)
        for argument in arguments:
            parser.add_argument(argument)
        parser.set_defaults(run=run)
        return parser

    command("list", "list workspaces: name, number of members", _list)
    command("add", "make a workspace", _add, "workspace")
    command("delete", "delete one without members and jobs", _delete, "workspace")
    command("members", "list members: address, role", _members, "workspace")
    member = command(
        "set-member", "make a user a member, or give another role", _set, "workspace", "email"
    )
    member.add_argument("role", choices=[role.value for role in Role])
    command("remove-member", "remove a member", _remove, "workspace", "email")


async def _list(accounts: Accounts, _options: argparse.Namespace) -> None:
    for workspace in await accounts.workspaces.all_workspaces():
        echo(f"{workspace.name}\t{workspace.members}")


async def _add(accounts: Accounts, options: argparse.Namespace) -> None:
    name = NewWorkspace(name=options.workspace).name
    await accounts.workspaces.create(OPERATOR, name)
    echo(f"created {name}")


async def _delete(accounts: Accounts, options: argparse.Namespace) -> None:
    await accounts.workspaces.delete(OPERATOR, options.workspace)
    echo(f"deleted {options.workspace}")


async def _members(accounts: Accounts, options: argparse.Namespace) -> None:
    for member in await accounts.workspaces.members(options.workspace):
        echo(f"{member.email}\t{member.role}")


async def _set(accounts: Accounts, options: argparse.Namespace) -> None:
    user_id = await accounts.service.id_of(normalise_email(options.email))
    role = Role(options.role)
    member = await accounts.workspaces.set_member(OPERATOR, options.workspace, user_id, role)
    echo(f"{member.email} is {member.role} in {options.workspace}")


async def _remove(accounts: Accounts, options: argparse.Namespace) -> None:
    user_id = await accounts.service.id_of(normalise_email(options.email))
    await accounts.workspaces.remove_member(OPERATOR, options.workspace, user_id)
    echo(f"{options.email} does not belong to {options.workspace}")
