"""How the command fails."""

from __future__ import annotations

# Exit codes; docs/operations.md lists them.
FAILED = 1
WRONG_USAGE = 2
NOT_ROOT = 3
REFUSED = 4
NO_DEPLOYMENT = 5


class CommandError(Exception):
    """The command cannot do what was asked. The message names the remedy."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        """Store the message for the operator and the exit code."""
        super().__init__(message)
        self.code = code
