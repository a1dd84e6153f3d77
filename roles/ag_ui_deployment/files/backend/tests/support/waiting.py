"""Wait for what other processes do."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], object | Awaitable[object]], seconds: float = 10.0) -> None:
    """Poll the condition until it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {seconds} s: {inspect.getsource(condition)}")
        await asyncio.sleep(0.01)
