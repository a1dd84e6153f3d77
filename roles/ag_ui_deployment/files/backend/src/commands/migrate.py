"""Bring the database schema up to date."""

import argparse
import asyncio
import sys

from pydantic import SecretStr
from sqlalchemy import make_url

from src.commands.output import echo, log_to_stderr
from src.config import Settings
from src.services.operations.migration import migrate
from src.services.operations.schema import is_later
from src.utils.database import Database


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    schema = commands.add_parser("migrate", help="bring the database schema up to date")
    schema.add_argument(
        "--owner",
        metavar="ROLE",
        help="the role that owns the tables, with its password on standard input; it gives the "
        "role of DATABASE_URL what the application needs. Without it that role owns them",
    )
    schema.set_defaults(run=_migrate)


def _migrate(settings: Settings, options: argparse.Namespace) -> None:
    log_to_stderr()
    url = make_url(settings.DATABASE_URL.get_secret_value())
    application = url.username
    if options.owner is not None:
        password = sys.stdin.readline().rstrip("\r\n")
        owner_url = url.set(username=options.owner, password=password).render_as_string(
            hide_password=False
        )
        settings = settings.model_copy(
            update={"DATABASE_URL": SecretStr(owner_url), "DATABASE_PREVIOUS_PASSWORD": None}
        )

    async def run() -> None:
        database = Database(settings, statement_timeout=None)
        try:
            before, after = await migrate(database, application)
        finally:
            await database.close()
        if is_later(after):
            echo(f"schema: left at {after}, which a later release has made")
        elif before == after:
            echo(f"schema: already at {after}")
        else:
            echo(f"schema: migrated from {before or 'nothing'} to {after}")

    asyncio.run(run())
