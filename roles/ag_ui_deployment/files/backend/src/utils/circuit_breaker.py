"""A circuit breaker: after consecutive failures, calls fail immediately for some time."""

import math
import time
from typing import Self

from src.config import Settings

_RETRY_NOTE = "asked again with the next call"


class CircuitOpenError(Exception):
    """The server is not asked now; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"not asked for another {retry_after} s")
        self.retry_after = retry_after


class CircuitBreaker:
    """Opens for `seconds` after `failures` consecutive failures.

    Afterwards calls pass again, and the first that fails opens it again. Callers do not report results
    that say nothing about the server.
    """

    def __init__(self, failures: int, seconds: float) -> None:
        self._max_failures = failures
        self._open_seconds = seconds
        self._failures = 0
        self._open_until = 0.0
        self._why = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.BREAKER_FAILURES, settings.BREAKER_SECONDS)

    @property
    def is_open(self) -> bool:
        return self._seconds_left > 0

    def enter(self) -> None:
        """Check that a call may be made.

        Raises:
            CircuitOpenError: The breaker is open.
        """
        seconds_left = self._seconds_left
        if seconds_left > 0:
            raise CircuitOpenError(math.ceil(seconds_left))

    def succeeded(self) -> None:
        self._failures = 0
        self._open_until = 0.0

    def failed(self, why: str) -> None:
        """Count a failure; `why` completes the sentence "it …"."""
        self._failures += 1
        self._why = why
        if self._failures >= self._max_failures:
            self._open_until = time.monotonic() + self._open_seconds

    def describe(self) -> str:
        """Describe the recent calls for /health."""
        if not self._failures:
            return "no call has failed since the last that worked"
        seconds_left = self._seconds_left
        next_call = (
            f"not asked for another {math.ceil(seconds_left)} s"
            if seconds_left > 0
            else _RETRY_NOTE
        )
        return f"{self._failures} in a row failed: it {self._why}; {next_call}"

    @property
    def _seconds_left(self) -> float:
        return self._open_until - time.monotonic()
