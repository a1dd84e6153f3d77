"""Copy archives to a bucket of S3 by rclone, whose configuration file has the login."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import programs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .settings import S3

# The section of the configuration.
REMOTE = "backup"


def copy(s3: S3, *files: Path) -> None:
    """Copy files, in this order. An object appears when the server has all of it.

    Raises:
        BackupError: rclone fails.
    """
    for file in files:
        _rclone(s3, "copyto", str(file), f"{_folder(s3)}/{file.name}")


def sizes(s3: S3) -> dict[str, int]:
    """Return the sizes of the objects by their names, without the prefix."""
    listed = _rclone(s3, "lsf", "--files-only", "--format=sp", "--separator= ", _folder(s3))
    pairs = (line.partition(" ") for line in listed.splitlines())
    return {name: int(size) for size, _, name in pairs}


def remove(s3: S3, names: Sequence[str]) -> None:
    """Remove objects; those that do not exist are ignored."""
    _rclone(
        s3, "delete", "--files-from=-", _folder(s3), send="".join(f"{name}\n" for name in names)
    )


def _folder(s3: S3) -> str:
    return f"{REMOTE}:{s3.target.removeprefix('s3://').rstrip('/')}"


def _rclone(s3: S3, *arguments: str, send: str | None = None) -> str:
    # Each request is repeated anyway. With a larger number all is repeated that has failed, and its errors are too.
    command = ["rclone", f"--config={s3.config}", "--retries=1", *arguments]
    # Variables of the environment would change the configuration.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    return programs.run(command, environment=environment, send=send)
