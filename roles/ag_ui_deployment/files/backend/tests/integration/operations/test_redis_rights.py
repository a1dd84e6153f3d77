"""A Redis account with exactly the rights that docs/operations.md lists."""

import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from src.models.permissions import Role
from src.models.user import User
from src.services.runs.log import LogRecord
from src.services.runs.registry import RunKey, RunRegistry, read_logs
from tests.support.accounts import ask_login, bearer, login
from tests.support.agent import (
    cancel,
    checked,
    events_path,
    run_input,
    running_agent,
    text_of,
    whole_run,
)
from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.server import Backend, running
from tests.support.sse import sse
from tests.support.waiting import until

PAGE = Path(__file__).parents[7] / "docs" / "operations.md"
EMAIL = "alice@shield.test"
# Since Redis 7.2 the client sends its version, and ignores a refusal.
HARMLESS = b"client|setinfo"


def documented() -> list[str]:
    """Return the page's command that creates the account, as redis-cli sends it."""
    (command,) = re.findall(
        r"^redis-cli (ACL SETUSER .*?[^\\\\])$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return shlex.split(command.replace("\\\n", " "))


class Account:
    def __init__(self, environment: Environment) -> None:
        self.name = f"rights-{uuid4().hex}"
        self._environment = environment
        self._password = uuid4().hex

    @property
    def url(self) -> str:
        parts = urlsplit(self._environment.redis_url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{self.name}:{self._password}@{host}"))

    async def make(self) -> None:
        """Create the account as documented, with another name, password and stream."""
        acl, setuser, default, *rules = documented()
        assert (acl, setuser, default) == ("ACL", "SETUSER", "default")
        assert ">PASSWORD" in rules
        rules = [
            rule.replace("PASSWORD", self._password).replace(
                "shield:events", self._environment.stream
            )
            for rule in rules
        ]
        await self._execute(acl, setuser, self.name, *rules)

    async def delete(self) -> None:
        await self._execute("ACL", "DELUSER", self.name)

    async def _execute(self, *words: str) -> None:
        redis: Any = self._environment.redis
        await redis.execute_command(*words)

    async def refused(self) -> list[bytes]:
        """Return the commands and keys that Redis has refused to the account."""
        entries = await self._environment.redis.acl_log(count=128)
        named = [{_bytes(key): _bytes(value) for key, value in entry.items()} for entry in entries]
        return [
            one[b"object"]
            for one in named
            if one[b"username"] == self.name.encode() and one[b"object"] != HARMLESS
        ]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture
async def account(environment: Environment) -> AsyncIterator[Account]:
    account = Account(environment)
    await account.make()
    yield account
    await account.delete()


@pytest.fixture
async def backend(
    environment: Environment, gateway: Gateway, account: Account
) -> AsyncIterator[Backend]:
    settings = environment.settings(
        **gateway.settings(), REDIS_URL=account.url, RATE_LOGIN_PER_ADDRESS="3/minute"
    )
    async with running(settings) as instance:
        yield instance


@pytest.fixture
async def alice(backend: Backend) -> User:
    return await backend.add_user(EMAIL, Role.CONTRIBUTOR)


async def test_streams_tickets_and_limits_work(
    backend: Backend, alice: User, environment: Environment, account: Account
) -> None:
    tokens = await login(backend, EMAIL)
    token = tokens["access_token"]
    (first,) = await environment.publish(shield_event("job:started", user=str(alice.id)))
    async with sse(backend.http, "/events", token=token) as client:
        await client.until(lambda it: it.events)
        (second,) = await environment.publish(shield_event("job:progress", user=str(alice.id)))
        await client.until(lambda it: str(second) in it.ids)
    await until(lambda: environment.has_stored([first, second]))

    answer = await backend.http.post("/auth/ticket", headers=bearer(token))
    query = f"/events?ticket={answer.json()['ticket']}&last_event_id={first}"
    async with sse(backend.http, query) as client:
        await client.until(lambda it: str(second) in it.ids)
    assert (await backend.http.get(query)).status_code == 401

    answers = [(await ask_login(backend, EMAIL)).status_code for _ in range(3)]
    assert answers == [200, 200, 429]
    assert [key async for key in environment.redis.scan_iter(f"{environment.stream}:limits*")]
    assert (await backend.health())["status"] == "healthy"
    assert await account.refused() == []


async def test_agent_works(backend: Backend, alice: User, account: Account) -> None:
    token = backend.token_of(alice)
    _, client = checked(await whole_run(backend.http, token, run_input("Hello")), complete=True)
    assert (client.outcome, text_of(client)) == ("success", "Echo: Hello")

    slow = run_input("words 50 fault=stall")
    async with (
        running_agent(backend.http, token, slow),
        sse(backend.http, events_path(slow), token=token) as follower,
    ):
        await cancel(backend, token, slow)
        await follower.until_ended(15)
    assert follower.events[-1]["type"] == "RUN_FINISHED"
    assert await account.refused() == []


async def test_runs_of_dead_processes_are_ended(environment: Environment, account: Account) -> None:
    redis = Redis.from_url(account.url, protocol=2)
    registry = RunRegistry(redis, environment.stream)
    keys = [RunKey(uuid4(), name) for name in ("died", "stored", "forgotten")]
    died, stored, forgotten = keys
    said = LogRecord.of({"type": "RUN_ERROR", "message": "x"})
    assert [await registry.begin(key, 5, keys) for key in keys] == ["begun"] * 3
    assert await registry.append(died, [said], 0) == 1
    await registry.request_cancellation(stored)
    assert set((await registry.renew(keys)).values()) == {(True, False), (True, True)}
    await registry.finish(stored, stored=True)
    await registry.delete(forgotten)
    await environment.redis.delete(f"{registry.log_key(died)}:lease")
    assert await registry.alive(keys) == {died: False, stored: True, forgotten: False}
    assert await registry.orphaned(keys) == keys
    assert await registry.close(died, 1, [said])
    assert await registry.has_log(died)
    logs = await read_logs(redis, {registry.log_key(died): 0}, 1)
    assert logs == {registry.log_key(died): [said, said]}
    assert await account.refused() == []
    await redis.aclose()


async def test_other_commands_are_refused(account: Account) -> None:
    redis: Any = Redis.from_url(account.url, protocol=2)
    for command in (("GET", "another:key"), ("KEYS", "*"), ("FLUSHDB",), ("CONFIG", "GET", "*")):
        with pytest.raises(NoPermissionError):
            await redis.execute_command(*command)
    assert len(await account.refused()) == 4
    await redis.aclose()
