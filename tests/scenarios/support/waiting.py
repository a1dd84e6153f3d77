"""Conditions are awaited with a deadline, never slept for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class TooLate(AssertionError):  # noqa: N818 - reads as what happened
    """A condition did not come true in time."""


def eventually(
    check: Callable[[], T],
    what: str,
    *,
    within: float,
    every: float = 0.1,
    despite: tuple[type[Exception], ...] = (),
) -> T:
    """The first true result of `check`; `despite` are errors that count as not yet true.

    Raises TooLate with the last result or error after `within` seconds.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            result = check()
        except despite as error:
            last = error
        else:
            if result:
                return result
            last = result
        if time.monotonic() >= deadline:
            raise TooLate(f"{what}: not within {within:g} s; last: {last!r}")
        time.sleep(every)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun
