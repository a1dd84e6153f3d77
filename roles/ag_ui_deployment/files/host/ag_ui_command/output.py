"""Output for the operator, whose terminal may be gone."""

from __future__ import annotations

import contextlib
import sys


def say(*lines: str) -> None:
    """Print lines. A lost connection must not interrupt what the command does."""
    with contextlib.suppress(OSError):
        print(*lines, sep="\n", flush=True)


def complain(message: str) -> None:
    """Print an error."""
    with contextlib.suppress(OSError):
        print(f"ag-ui: {message}", file=sys.stderr, flush=True)
