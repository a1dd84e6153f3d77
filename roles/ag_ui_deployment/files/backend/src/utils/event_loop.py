"""Long work on the event loop that others share."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_TURN = 0.002
_QUIET = 0.0005


async def cooperative_iter(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The items one by one; all other tasks get a turn after every two milliseconds of work."""
    clock = time.perf_counter
    end = clock() + _TURN
    for item in items:
        yield item
        if clock() > end:
            await asyncio.sleep(0)
            end = clock() + _TURN


async def yield_control(at_most: float) -> None:
    """Wait until the other tasks have nothing to do for a moment, or so many seconds are over."""
    clock = time.perf_counter
    end = clock() + at_most
    while True:
        began = clock()
        await asyncio.sleep(0)
        now = clock()
        if now - began < _QUIET or now > end:
            return
