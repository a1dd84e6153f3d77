"""Cooperative scheduling of long work on the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

ItemT = TypeVar("ItemT")

_TURN = 0.002
_QUIET = 0.0005


async def cooperative_iter(items: Iterable[ItemT]) -> AsyncIterator[ItemT]:
    """Iterate, and let other tasks run after every two milliseconds of work."""
    clock = time.perf_counter
    end = clock() + _TURN
    for item in items:
        yield item
        if clock() > end:
            await asyncio.sleep(0)
            end = clock() + _TURN


async def yield_control(at_most: float) -> None:
    """Let other tasks run until they are idle, or for at most `at_most` seconds."""
    clock = time.perf_counter
    end = clock() + at_most
    while True:
        began = clock()
        await asyncio.sleep(0)
        now = clock()
        if now - began < _QUIET or now > end:
            return
