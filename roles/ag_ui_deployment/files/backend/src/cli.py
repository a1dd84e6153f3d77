"""Command line of the image: serve, migrate, manage users, verify the audit log, check the settings, restore a backup."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from src.commands.output import EXIT_BAD_INPUT, EXIT_UNAVAILABLE, fail
from src.config import SettingsError, load_settings
from src.utils.database import DATABASE_ERRORS

# The modules of src.commands by their commands. Only that of the given command is imported, because all of them take
# seconds to import.
_MODULES = {
    "serve": "serve",
    "migrate": "schema",
    "users": "users",
    "second-factors": "second_factors",
    "workspaces": "workspaces",
    "audit": "audit",
    "settings": "settings",
    "stream": "stream",
    "openapi": "openapi",
    "permissions": "permissions",
}


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
    for name in _MODULES.keys() & command or _MODULES:
        import_module(f"src.commands.{_MODULES[name]}").register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
