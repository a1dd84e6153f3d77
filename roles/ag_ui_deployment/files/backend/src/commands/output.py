"""Output of the commands: results on standard output, errors on standard error, exit codes."""

import sys

from src.services.audit.journal import JOURNAL
from src.utils.logger import configure_logging

EXIT_BAD_INPUT = 2
EXIT_EXISTS = 3
EXIT_UNAVAILABLE = 4
EXIT_BROKEN = 5
EXIT_REFUSED = 6


def log_to_stderr() -> None:
    """Log warnings and the journal of the audit log to standard error."""
    configure_logging("WARNING", always=[JOURNAL], stream=sys.stderr)


def echo(text: str) -> None:
    print(text)  # noqa: T201 - output of a command


def fail(code: int, text: str) -> int:
    """Print an error and return its exit code."""
    print(text, file=sys.stderr)  # noqa: T201 - output of a command
    return code
