"""Bring the database schema up to date."""

import argparse
import asyncio

from src.commands.answers import say
from src.config import Settings
from src.services.schema_service import migrate
from src.utils.database import Database
from src.utils.logger import configure_logging


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    schema = commands.add_parser("migrate", help="bring the database schema up to date")
    schema.set_defaults(run=_migrate)


def _migrate(settings: Settings, _options: argparse.Namespace) -> None:
    configure_logging("WARNING")

    async def run() -> None:
        database = Database(settings, statement_timeout=None)
        try:
            before, after = await migrate(database)
        finally:
            await database.close()
        if before == after:
            say(f"schema: already at {after}")
        else:
            say(f"schema: migrated from {before or 'nothing'} to {after}")

    asyncio.run(run())
