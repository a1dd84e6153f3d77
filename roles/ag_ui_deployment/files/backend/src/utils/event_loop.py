"""Cooperative scheduling of long work on the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

ItemT = TypeVar("ItemT")

_SLICE_SECONDS = 0.002
_IDLE_SECONDS = 0.0005


async def cooperative_iter(items: Iterable[ItemT]) -> AsyncIterator[ItemT]:
    """Iterate, and let other tasks run after every two milliseconds of work."""
    clock = time.perf_counter
    end = clock() + _SLICE_SECONDS
    for item in items:
        yield item
        if clock() > end:
            await asyncio.sleep(0)
            end = clock() + _SLICE_SECONDS


async def yield_control(max_seconds: float) -> None:
    """Let other tasks run until they are idle, or for at most `max_seconds` seconds."""
    clock = time.perf_counter
    end = clock() + max_seconds
    while True:
        began = clock()
        await asyncio.sleep(0)
        now = clock()
        if now - began < _IDLE_SECONDS or now > end:
            return
