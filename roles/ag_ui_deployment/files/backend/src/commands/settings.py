"""Check the settings."""

import argparse
import asyncio
from contextlib import suppress

from src.commands.output import EXIT_BAD_INPUT, echo, fail
from src.config import Settings
from src.services.operations.pool_mode import TRANSACTION_POOLING, is_pooled_per_transaction
from src.utils.database import DATABASE_ERRORS, Database


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    settings = commands.add_parser("settings", help="look at the settings").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = settings.add_parser("check", help="name every wrong setting, change nothing")
    check.set_defaults(run=_check_settings)


def _check_settings(settings: Settings, _options: argparse.Namespace) -> int | None:
    if asyncio.run(_is_pooled_per_transaction(settings)):
        return fail(EXIT_BAD_INPUT, TRANSACTION_POOLING)
    echo("settings: all right")
    return None


async def _is_pooled_per_transaction(settings: Settings) -> bool:
    """Return False also if PostgreSQL is unavailable: an outage is not an invalid setting."""
    database = Database(settings)
    try:
        with suppress(*DATABASE_ERRORS):
            return await is_pooled_per_transaction(database)
    finally:
        await database.close()
    return False
