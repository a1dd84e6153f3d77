"""A run of this process, from its start until its end is stored."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest

from src.models.agent_input import RunInput
from src.models.user import User
from src.services.agent.loop import AgentLoop
from src.services.agent.prompt import ChatTool
from src.services.agent.turn import ToolCall
from src.services.gateway.chat_stream import ChatChunk, Usage
from src.services.runs.log import LogRecord
from src.services.runs.registry import RunKey, RunRegistry
from src.services.runs.runner import LocalRun, PersistRun
from tests.support.agent import run_input
from tests.support.waiting import until

if TYPE_CHECKING:
    from src.services.agent.token_budget import TokenBudget
    from src.services.agent.toolbox import Toolbox
    from src.services.litellm_client import LiteLLMClient

KEY = RunKey(uuid4(), "run")
ANSWER = (ChatChunk(content="Hello"), ChatChunk(finish_reason="stop"))


class Answers:
    """A model with a constant response."""

    async def chat(self, _body: Mapping[str, Any]) -> AsyncGenerator[ChatChunk]:
        for chunk in ANSWER:
            yield chunk


class NoTools:
    names: Collection[str] = ()

    async def check_workspace(self, _user: User, _workspace: str) -> None:
        return

    async def offered(self, _user: User, _workspace: str) -> Sequence[ChatTool]:
        return ()

    async def call(self, _user: User, _workspace: str, _call: ToolCall) -> str:
        raise AssertionError


class NoBudget:
    def record(self, _user_id: UUID, _model: str, _usage: Usage) -> None:
        return

    async def is_exhausted(self, _user_id: UUID) -> bool:
        return False


class Registry:
    """Records the calls to Redis."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self.finished: list[bool] = []

    async def append(self, _key: RunKey, records: Sequence[LogRecord], _sent: int) -> int:
        self.records = list(records)
        return len(records)

    async def finish(self, _key: RunKey, *, stored: bool) -> None:
        self.finished.append(stored)


class Storage:
    """A stub of PostgreSQL that stores a run when allowed to, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[Sequence[LogRecord]] = []
        self.allowed = asyncio.Event()
        self._error = error

    async def store(self, _key: RunKey, records: Sequence[LogRecord]) -> bool:
        self.asked.append(records)
        await self.allowed.wait()
        if self._error:
            raise self._error
        return True


async def _keep_permissions(user: User, _workspace: str) -> User:
    return user


def started(registry: Registry, store: PersistRun) -> tuple[LocalRun, asyncio.Event]:
    """Start a run; return it with an event that is set when all its work is done."""
    loop = AgentLoop(
        RunInput.model_validate(run_input("Hello")),
        cast("User", SimpleNamespace(id=KEY.owner)),
        model=cast("LiteLLMClient", Answers()),
        model_name="model",
        system_prompt="",
        max_rounds=2,
        max_calls=1,
        max_answer_bytes=1_000_000,
        tools=cast("Toolbox", NoTools()),
        budget=cast("TokenBudget", NoBudget()),
        permitted_user=_keep_permissions,
    )
    run = LocalRun(KEY, loop, cast("RunRegistry", registry), store)
    done = asyncio.Event()
    run.start(lambda _: done.set())
    return run, done


async def test_end_is_published_after_it_is_stored() -> None:
    registry, storage = Registry(), Storage()
    run, done = started(registry, storage.store)
    await until(lambda: storage.asked)
    # Let the event loop run everything that does not wait for the store.
    for _ in range(100):
        await asyncio.sleep(0)
    assert [one.type for one in run.log.records][-1] == "STEP_FINISHED"
    assert registry.records == run.log.records
    assert not registry.finished
    storage.allowed.set()
    await done.wait()
    assert run.log.ended
    assert registry.records == run.log.records == storage.asked[0]
    assert registry.finished == [True]


async def test_unstored_run_is_finished_as_unstored() -> None:
    registry, storage = Registry(), Storage(ConnectionRefusedError())
    storage.allowed.set()
    run, done = started(registry, storage.store)
    await until(lambda: run.log.ended)
    await run.wait_closed(0)
    await done.wait()
    assert registry.finished == [False]


async def test_slow_store_delays_the_end_up_to_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("src.services.runs.runner._STORE_SECONDS", 0.01)
    registry, storage = Registry(), Storage()
    run, done = started(registry, storage.store)
    await until(lambda: run.log.ended)
    assert not registry.finished
    storage.allowed.set()
    await done.wait()
    assert registry.finished == [True]
