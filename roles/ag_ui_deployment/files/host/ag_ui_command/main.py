"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import SITE_FILE

from ag_ui_command import instances, maintenance, releases, rollback, status
from ag_ui_command.errors import FAILED, NOT_ROOT, WRONG_USAGE, CommandError
from ag_ui_command.host import load_site
from ag_ui_command.output import complain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site

EPILOG = """\
exit codes:
  0  done, and status found nothing broken
  1  failed, or status found something broken
  2  wrong arguments
  3  not run as root
  4  refused: nothing was changed
  5  there is no deployment on this host
exec has the exit code of the backend's command.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the remedy."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the arguments, and how they should be."""
        complain(f"{message}\n{self.format_usage().strip()}\nFor help: {self.prog} --help")
        raise SystemExit(WRONG_USAGE)


def main(arguments: Sequence[str] | None = None, site_file: Path = SITE_FILE) -> int:
    """Run the command.

    Args:
        arguments: The arguments; those of the process by default.
        site_file: The description of the site.

    Returns:
        The exit code.
    """
    options = parser().parse_args(
        with_joined_since(sys.argv[1:] if arguments is None else arguments)
    )
    if os.geteuid() != 0:
        complain("Only root may do this. Repeat it with sudo in front.")
        return NOT_ROOT
    try:
        return int(options.run(load_site(site_file), options) or 0)
    except CommandError as error:
        complain(str(error))
        return error.code
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or "It was interrupted.")
        return FAILED
    except OSError as error:
        complain(f"{error}. Look at that file, its permissions and the free space of the disk.")
        return FAILED


def with_joined_since(arguments: Sequence[str]) -> list[str]:
    """Join `--since` with its value, which may begin with a minus as `-1h` does, and would be taken as an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[0] == "logs" and joined[-1] == "--since":
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def parser() -> Parser:
    """Make the parser."""
    top = Parser(
        prog="ag-ui",
        description="Operate the Shield AG-UI backend on this host.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=Parser
    )

    command = commands.add_parser(
        "status", help="instances, release, proxy, events, disks, problems"
    )
    command.add_argument("--json", action="store_true", help="print it for programs")
    command.set_defaults(run=_status)

    command = commands.add_parser("logs", help="the log of an instance, or of all")
    command.add_argument("port", nargs="?", type=int, metavar="PORT")
    command.add_argument("--follow", "-f", action="store_true", help="go on with new lines")
    command.add_argument("--since", default="", help="all lines since a time, such as '1 hour ago'")
    command.add_argument("--lines", "-n", type=int, default=100, help="how many of the last lines")
    command.set_defaults(run=_logs)

    command = commands.add_parser("releases", help="the releases on this host")
    command.add_argument("--json", action="store_true", help="print them for programs")
    command.set_defaults(run=_releases)

    command = commands.add_parser(
        "rollback", help="go back to the previous release, or to a given one"
    )
    command.add_argument("release", nargs="?", default="", metavar="RELEASE")
    command.set_defaults(run=_rollback)

    command = commands.add_parser("drain", help="stop an instance and keep it out")
    command.add_argument("port", type=int, metavar="PORT")
    command.add_argument("--force", action="store_true", help="also the last one that is ready")
    command.set_defaults(run=_drain)

    command = commands.add_parser("start", aliases=["undrain"], help="start an instance again")
    command.add_argument("port", type=int, metavar="PORT")
    command.set_defaults(run=_start)

    command = commands.add_parser(
        "recover", help="go back from a failed trial; systemd calls it by itself"
    )
    command.add_argument("port", type=int, metavar="PORT")
    command.set_defaults(run=_recover)

    command = commands.add_parser(
        "maintenance", help="close the site for clients, or open it again"
    )
    command.add_argument("state", choices=["on", "off", "status"])
    command.set_defaults(run=_maintenance)

    command = commands.add_parser(
        "exec", help="a command of the backend, such as: exec users list", add_help=False
    )
    command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS")
    command.set_defaults(run=_exec)
    return top


def _status(site: Site, options: argparse.Namespace) -> int:
    return status.show_status(site, as_json=options.json)


def _logs(site: Site, options: argparse.Namespace) -> None:
    instances.show_logs(
        site, options.port, follow=options.follow, since=options.since, lines=options.lines
    )


def _releases(site: Site, options: argparse.Namespace) -> None:
    releases.show_releases(site, as_json=options.json)


def _rollback(site: Site, options: argparse.Namespace) -> None:
    rollback.roll_back(site, options.release)


def _drain(site: Site, options: argparse.Namespace) -> None:
    instances.drain(site, options.port, force=options.force)


def _start(site: Site, options: argparse.Namespace) -> None:
    instances.start(site, options.port)


def _recover(site: Site, options: argparse.Namespace) -> None:
    instances.recover(site, options.port)


def _maintenance(site: Site, options: argparse.Namespace) -> None:
    {"on": maintenance.begin, "off": maintenance.end, "status": maintenance.show}[options.state](
        site
    )


def _exec(site: Site, options: argparse.Namespace) -> None:
    instances.run_backend_command(site, options.arguments)
