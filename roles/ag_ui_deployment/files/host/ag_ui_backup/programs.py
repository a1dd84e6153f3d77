"""Run other programs, and report their own words if they fail."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# Characters of a program's errors that are included in a message.
MAX_ERROR_CHARS = 2000


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    send: str | None = None,
) -> str:
    """Run a program; return its standard output.

    Args:
        command: The program and its arguments, which every user of the host can read.
        environment: All of its environment; None for that of this process.
        send: Its standard input.

    Raises:
        BackupError: It is missing or fails.
    """
    try:
        done = subprocess.run(
            command,
            env=environment,
            input=send,
            stdin=subprocess.DEVNULL if send is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise missing(command[0], error) from error
    if done.returncode != 0:
        raise failed(command[0], done.returncode, done.stderr)
    return done.stdout


@contextmanager
def running(command: Sequence[str | Path], stdin: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the duration of the block, with pipes for what it prints.

    Args:
        command: The program and its arguments, which every user of the host can read.
        stdin: Its standard input: `subprocess.PIPE` or `subprocess.DEVNULL`.

    Raises:
        BackupError: It is missing.
    """
    try:
        process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise missing(command[0], error) from error
    with process:
        try:
            yield process
        finally:
            process.kill()


def missing(program: str | Path, error: OSError) -> BackupError:
    """Describe a program that cannot be started."""
    return BackupError(f"{program} cannot be run ({error.strerror}). Install its package.")


def failed(program: str | Path, code: int, errors: str) -> BackupError:
    """Describe the failure of a program by the end of its own errors."""
    words = errors.strip()[-MAX_ERROR_CHARS:] or "it printed no error"
    return BackupError(f"{str(program).rpartition('/')[2]} ended with {code}: {words}")
