"""Command line of the image: serve, migrate, manage users, verify the audit log, check the settings, restore a backup."""

import argparse
import sys
from collections.abc import Sequence

from src.commands import (
    audit,
    openapi,
    permissions,
    schema,
    second_factors,
    serve,
    settings,
    stream,
    users,
    workspaces,
)
from src.commands.output import EXIT_BAD_INPUT, EXIT_UNAVAILABLE, fail
from src.config import SettingsError, load_settings
from src.utils.database import DATABASE_ERRORS


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        loaded = load_settings()
    except SettingsError as error:
        return fail(EXIT_BAD_INPUT, str(error))
    try:
        return int(options.run(loaded, options) or 0)
    except DATABASE_ERRORS as error:
        return fail(EXIT_UNAVAILABLE, f"PostgreSQL (DATABASE_URL) cannot be used: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m src.cli", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    subjects = (
        serve,
        schema,
        users,
        second_factors,
        workspaces,
        audit,
        settings,
        stream,
        openapi,
        permissions,
    )
    for subject in subjects:
        subject.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
