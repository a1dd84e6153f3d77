"""Look at the settings."""

import argparse

from src.commands.answers import say
from src.config import Settings


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    settings = commands.add_parser("settings", help="look at the settings").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = settings.add_parser("check", help="name every wrong setting, change nothing")
    check.set_defaults(run=_check_settings)


def _check_settings(_settings: Settings, _options: argparse.Namespace) -> None:
    say("settings: all right")
