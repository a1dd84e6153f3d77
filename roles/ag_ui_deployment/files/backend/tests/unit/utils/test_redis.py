"""Backoff between attempts, and replies of Redis."""

import asyncio
from typing import Any

import pytest

from src.utils.redis import Backoff, stream_rows


async def test_backoff_grows_to_its_maximum_and_ends_on_stop() -> None:
    backoff = Backoff(first=0.001, maximum=0.004)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for expected in (0.001, 0.002, 0.004, 0.004):
        assert backoff._next == expected
        await backoff.wait(stop)
    backoff.reset()
    assert backoff._next == 0.001
    stop.set()
    began = loop.time()
    await Backoff(first=60, maximum=60).wait(stop)
    assert loop.time() - began < 5


@pytest.mark.parametrize("answer", [None, [], {}])
def test_empty_reply_has_no_rows(answer: Any) -> None:
    assert stream_rows(answer) == []
