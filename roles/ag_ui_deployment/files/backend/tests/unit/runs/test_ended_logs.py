"""Cached logs of ended runs: shared, and bounded in memory."""

import asyncio
from uuid import uuid4

import pytest

from src.services.events.errors import TooManyStreamsError, TooManyStreamsOfUserError
from src.services.runs import ended_logs
from src.services.runs.ended_logs import EndedLogs
from src.services.runs.log import LogRecord
from src.services.runs.registry import RunKey

OWNER = uuid4()
HALF = ended_logs.USER_MAX_BYTES


def key(name: str) -> RunKey:
    return RunKey(OWNER, name)


@pytest.fixture
def loads() -> list[str]:
    return []


@pytest.fixture
def logs(loads: list[str]) -> EndedLogs:
    """Each run's log is as large as the limit per user."""
    data = b" " * HALF

    async def load(key: RunKey) -> list[LogRecord] | None:
        loads.append(key.run_id)
        return None if key.run_id == "unknown" else [LogRecord("RUN_ERROR", None, data)]

    return EndedLogs(load)


async def test_concurrent_readers_share_one_load(logs: EndedLogs, loads: list[str]) -> None:
    found = await asyncio.gather(*(logs.get(key("a"), uuid4()) for _ in range(10)))
    assert len(set(map(id, found))) == 1
    assert loads == ["a"]


async def test_unknown_run_uses_no_memory(logs: EndedLogs) -> None:
    assert await logs.get(key("unknown"), OWNER) is None
    assert logs.reserved_bytes == 0


async def test_user_limit_is_below_the_total_limit(logs: EndedLogs, loads: list[str]) -> None:
    mine = await logs.get(key("a"), OWNER)
    with pytest.raises(TooManyStreamsOfUserError):
        await logs.get(key("b"), OWNER)
    theirs = await logs.get(key("c"), uuid4())
    assert loads == ["a", "c"]
    with pytest.raises(TooManyStreamsError):
        await logs.get(key("d"), uuid4())
    # Further users may read a log that is already in memory.
    assert await logs.get(key("c"), OWNER) is theirs
    del mine
    assert await logs.get(key("b"), OWNER)
    assert loads == ["a", "c", "b"]


async def test_data_being_sent_counts_until_released(logs: EndedLogs) -> None:
    async with logs.reserve(OWNER) as hold:
        sent = [hold(b" " * HALF)]
    assert logs.reserved_bytes == HALF
    with pytest.raises(TooManyStreamsOfUserError):
        await logs.get(key("a"), OWNER)
    with pytest.raises(TooManyStreamsOfUserError):
        async with logs.reserve(OWNER):
            raise AssertionError
    async with logs.reserve(uuid4()) as hold:
        sent.append(hold(b" " * HALF))
    with pytest.raises(TooManyStreamsError):
        async with logs.reserve(uuid4()):
            raise AssertionError
    sent.clear()
    assert logs.reserved_bytes == 0
    assert await logs.get(key("a"), OWNER)
