"""Wait for conditions with a deadline instead of sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class TooLate(AssertionError):  # noqa: N818 - the name describes the failure
    """A condition did not become true in time."""


def eventually(  # noqa: PLR0913 - keyword arguments
    check: Callable[[], T],
    what: str,
    *,
    within: float,
    every: float = 0.1,
    ignoring: tuple[type[Exception], ...] = (),
    progress: Callable[[], object] = lambda: None,
) -> T:
    """Poll `check` and return its first true result.

    Args:
        check: The condition.
        what: What is awaited, for the error message.
        within: Deadline in seconds.
        every: Poll interval in seconds.
        ignoring: Exceptions that count as not yet true.
        progress: Each change of its result moves the deadline: a busy machine is slow, not stuck.

    Raises:
        TooLate: With the last result or error, after the deadline.
    """
    deadline = time.monotonic() + within
    last: object = None
    position = progress()
    while True:
        try:
            result = check()
        except ignoring as error:
            last = error
        else:
            if result:
                return result
            last = result
        if (current := progress()) != position:
            position, deadline = current, time.monotonic() + within
        if time.monotonic() >= deadline:
            raise TooLate(f"{what}: not within {within:g} s; last: {last!r}")
        time.sleep(every)


class Stopwatch:
    """Seconds since its creation."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun
