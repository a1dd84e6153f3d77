"""Command line of the image: serve, migrate, manage users, verify the audit log, check the settings, restore a backup."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from src.commands.output import EXIT_BAD_INPUT, EXIT_UNAVAILABLE, fail
from src.config import SettingsError, load_settings
from src.utils.database import DATABASE_ERRORS

# Each has a module of its name. Only that of the given command is imported, because all of them take seconds to import.
_COMMANDS = (
    "serve",
    "migrate",
    "users",
    "second-factors",
    "workspaces",
    "audit",
    "settings",
    "stream",
    "openapi",
    "permissions",
)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments[:1]).parse_args(arguments)
    try:
        loaded = load_settings()
    except SettingsError as error:
        return fail(EXIT_BAD_INPUT, str(error))
    try:
        return int(options.run(loaded, options) or 0)
    except DATABASE_ERRORS as error:
        return fail(EXIT_UNAVAILABLE, f"PostgreSQL (DATABASE_URL) cannot be used: {error}")


def _parser(command: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command, or of all commands for help and for a wrong command."""
    parser = argparse.ArgumentParser(prog="python -m src.cli", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in {*_COMMANDS}.intersection(command) or _COMMANDS:
        import_module(f"src.commands.{name.replace('-', '_')}").register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
