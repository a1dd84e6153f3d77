"""Back up the site, read archives, and restore the database.

run                               make a backup, as the timer does
list                              list the archives on this host, and those in S3
unpack ARCHIVE DIRECTORY [--identity FILE]
                                  decrypt and check an archive, extract it into an empty directory, print its manifest
restore check|load|exchange|finish
                                  a step of playbooks/restore.yml; reads the plan from standard input
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import archives, backup, bucket, restore
from .errors import BackupError
from .settings import DEFAULT_FILE, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


def main(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)
    # Ends with an exception, so that temporary files and databases are removed.
    signal.signal(signal.SIGTERM, _end)
    try:
        options.run(options)
    except BackupError as error:
        print(f"ag-ui-backup: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ag-ui-backup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--settings", type=Path, default=DEFAULT_FILE, help="file of the settings")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("run").set_defaults(run=_run)
    commands.add_parser("list").set_defaults(run=_list)
    unpack = commands.add_parser("unpack")
    unpack.add_argument("archive", type=Path)
    unpack.add_argument("directory", type=Path)
    unpack.add_argument(
        "--identity", type=Path, help="file of the private key, without a passphrase"
    )
    unpack.set_defaults(run=_unpack)
    restoring = commands.add_parser("restore")
    restoring.add_argument("step", choices=["check", "load", "exchange", "finish"])
    restoring.set_defaults(run=_restore)
    return parser


def _run(options: argparse.Namespace) -> None:
    backup.run(Settings.load(options.settings))


def _list(options: argparse.Namespace) -> None:
    settings = Settings.load(options.settings)
    for path in backup.kept(settings):
        print(f"{path.stat().st_size:>14}  {path}")
    if settings.s3:
        for name, size in sorted(bucket.sizes(settings.s3).items(), reverse=True):
            if not name.endswith(".sha256"):
                print(f"{size:>14}  {settings.s3.target.rstrip('/')}/{name}")


def _unpack(options: argparse.Namespace) -> None:
    print(json.dumps(archives.unpack(options.archive, options.identity, options.directory)))


def _restore(options: argparse.Namespace) -> None:
    with restore.plan(sys.stdin.read()) as plan:
        if options.step == "check":
            print(json.dumps(restore.check(plan)))
        else:
            getattr(restore, options.step)(plan)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit("ag-ui-backup: terminated")
