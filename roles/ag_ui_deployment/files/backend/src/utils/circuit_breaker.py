"""A circuit breaker: after failures in a row, nobody waits for a server that is not there."""

import math
import time
from typing import Self

from src.config import Settings


class CircuitOpenError(Exception):
    """The server is not asked now; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"not asked for another {retry_after} s")
        self.retry_after = retry_after


class CircuitBreaker:
    """Counts failures in a row. At `failures` it opens for `seconds`; then one call may probe.

    Each enter() is to be followed by one of succeeded(), failed() and abandoned().
    """

    def __init__(self, failures: int, seconds: float) -> None:
        self._allowed = failures
        self._pause = seconds
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False
        self._why = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.BREAKER_FAILURES, settings.BREAKER_SECONDS)

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def enter(self) -> None:
        """Raises CircuitOpenError."""
        if self._opened_at is None:
            return
        left = self._opened_at + self._pause - time.monotonic()
        if left > 0 or self._probing:
            raise CircuitOpenError(max(1, math.ceil(left)))
        self._probing = True

    def succeeded(self) -> None:
        self._failures = 0
        self._opened_at = None
        self._probing = False

    def failed(self, why: str) -> None:
        self._failures += 1
        self._probing = False
        self._why = why
        if self._failures >= self._allowed:
            self._opened_at = time.monotonic()

    def abandoned(self) -> None:
        """Nothing was learnt of the server."""
        self._probing = False

    def describe(self) -> str:
        """What the calls of late tell, in words."""
        if not self._failures:
            return "no call has failed since the last that worked"
        last = f"{self._failures} in a row failed: it {self._why}"
        return f"{last}; asked again every {self._pause:.0f} s" if self.is_open else last
