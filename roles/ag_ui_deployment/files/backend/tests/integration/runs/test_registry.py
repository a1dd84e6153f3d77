"""Agent runs in Redis: who may append to a log, and how long it is kept."""

from uuid import uuid4

import pytest

from src.services.agui import events as agui
from src.services.agui.events import now
from src.services.runs.errors import LOST
from src.services.runs.log import LogRecord
from src.services.runs.registry import LEASE_SECONDS, RunKey, RunRegistry
from tests.support.environment import Environment

HOUR = 3600
RECORDS = [
    LogRecord.of(agui.run_started("thread", "run", now())),
    LogRecord.of(agui.text_start("m", now())),
    LogRecord.of(agui.text_content("m", "Hello", now())),
]
END = LogRecord.of(LOST.event())


@pytest.fixture
def registry(environment: Environment) -> RunRegistry:
    return RunRegistry(environment.redis, environment.stream)


@pytest.fixture
async def key(registry: RunRegistry) -> RunKey:
    """A run that has started, with its first records."""
    key = RunKey(uuid4(), "run")
    assert await registry.begin(key, 1) == "begun"
    assert await registry.append(key, RECORDS[:2], 0) == 2
    return key


async def length(environment: Environment, registry: RunRegistry, key: RunKey) -> int:
    return int(await environment.redis.xlen(registry.log_key(key)))


async def kept_for(environment: Environment, registry: RunRegistry, key: RunKey) -> int:
    """Return the TTL of the log in seconds."""
    return int(await environment.redis.ttl(registry.log_key(key)))


@pytest.mark.parametrize("stored", [True, False])
async def test_finished_log_does_not_grow(
    environment: Environment,
    registry: RunRegistry,
    key: RunKey,
    stored: bool,  # noqa: FBT001 - a case of the test
) -> None:
    await registry.finish(key, stored=stored)
    assert await registry.append(key, RECORDS, 2) is None
    assert await registry.append(key, RECORDS, 0) is None
    assert await length(environment, registry, key) == 2


async def test_closed_log_does_not_grow_and_cannot_be_reopened(
    environment: Environment, registry: RunRegistry, key: RunKey
) -> None:
    await environment.redis.delete(registry._lease_key(key))
    assert await registry.close(key, 2, [END])
    assert await registry.append(key, RECORDS, 2) is None
    leases = await registry.renew([key])
    assert not leases[key].is_open
    assert await registry.append(key, RECORDS, 2) is None
    assert not await registry.close(key, 3, [END])
    assert await length(environment, registry, key) == 3


async def test_active_run_cannot_be_closed(
    environment: Environment, registry: RunRegistry, key: RunKey
) -> None:
    assert not await registry.close(key, 2, [END])
    await environment.redis.delete(registry._lease_key(key))
    await registry.append(key, RECORDS, 2)
    assert not await registry.close(key, 2, [END])
    assert await length(environment, registry, key) == 3


async def test_log_expires_after_a_day_unless_stored(
    environment: Environment, registry: RunRegistry, key: RunKey
) -> None:
    assert 23 * HOUR < await kept_for(environment, registry, key) <= 24 * HOUR
    await registry.finish(key, stored=False)
    assert 23 * HOUR < await kept_for(environment, registry, key) <= 24 * HOUR
    assert 23 * HOUR < await environment.redis.ttl(registry._lease_key(key)) <= 24 * HOUR
    await registry.finish(key, stored=True)
    assert 0 < await kept_for(environment, registry, key) <= 60


async def test_closed_log_expires_after_a_day(
    environment: Environment, registry: RunRegistry, key: RunKey
) -> None:
    await environment.redis.delete(registry._lease_key(key))
    assert await registry.close(key, 2, [END])
    assert 23 * HOUR < await kept_for(environment, registry, key) <= 24 * HOUR


async def test_run_counts_towards_the_limit_until_its_end(
    registry: RunRegistry, key: RunKey
) -> None:
    another = key._replace(run_id="another")
    assert await registry.begin(key, 2) == "exists"
    assert await registry.begin(another, 1) == "full"
    assert await registry.begin(another, 1, [key]) == "begun"
    assert await registry.begin(key._replace(run_id="third"), 1, [key]) == "full"
    await registry.delete(another)
    await registry.finish(key, stored=True)
    assert await registry.begin(key._replace(run_id="third"), 0, [key]) == "full"
    assert await registry.begin(another, 1) == "begun"
    assert await registry.begin(key._replace(owner=uuid4()), 1) == "begun"


async def test_keys_of_a_dead_process_expire(
    environment: Environment, registry: RunRegistry, key: RunKey
) -> None:
    await environment.redis.delete(registry._user_key(key))
    assert (await registry.renew([key]))[key].is_open
    for name in (registry._lease_key(key), registry._user_key(key)):
        assert 0 < await environment.redis.pttl(name) <= 2 * LEASE_SECONDS * 1000
