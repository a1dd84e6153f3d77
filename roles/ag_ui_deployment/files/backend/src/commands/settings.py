"""Check the settings."""

import argparse
import asyncio
from contextlib import suppress

from src.commands.output import EXIT_BAD_INPUT, echo, fail
from src.config import Settings
from src.services.operations.needed_keys import missing_keys
from src.services.operations.pool_mode import TRANSACTION_POOLING, is_pooled_per_transaction
from src.utils.database import DATABASE_ERRORS, Database

_KEYS_REMEDY = (
    "If a key is lost, or what was made with it must no longer count, confirm that with "
    "ag_ui_allow_key_loss=true (the option --allow-key-loss)"
)


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    settings = commands.add_parser("settings", help="look at the settings").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = settings.add_parser("check", help="name every wrong setting, change nothing")
    check.add_argument(
        "--allow-key-loss",
        action="store_true",
        help="also if stored data or current tokens need a key that the settings do not have",
    )
    check.set_defaults(run=_check_settings)


def _check_settings(settings: Settings, options: argparse.Namespace) -> int | None:
    problems = asyncio.run(_problems(settings, allow_key_loss=options.allow_key_loss))
    if problems:
        return fail(EXIT_BAD_INPUT, "\n".join(problems))
    echo("settings: all right")
    return None


async def _problems(settings: Settings, *, allow_key_loss: bool) -> list[str]:
    """Find none if PostgreSQL is unavailable: an outage is not an invalid setting."""
    database = Database(settings)
    try:
        with suppress(*DATABASE_ERRORS):
            if await is_pooled_per_transaction(database):
                return [TRANSACTION_POOLING]
            if not allow_key_loss and (missing := await missing_keys(database, settings)):
                return [*missing, _KEYS_REMEDY]
    finally:
        await database.close()
    return []
