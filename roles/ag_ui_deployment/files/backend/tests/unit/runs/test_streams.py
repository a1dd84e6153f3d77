"""A stream of a run: why it ends, and what its end does to the run."""

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from uuid import UUID

import pytest

from src.models.permissions import Role
from src.models.user import User
from src.services.agui import events as agui
from src.services.auth.stream_registry import AccessChange, StreamRegistry
from src.services.auth.tokens import AccessToken
from src.services.events.stream_server import StreamServer
from src.services.runs import stream_writer as run_stream_writer
from src.services.runs.log import LogRecord, RunLog
from src.services.runs.registry import RunKey
from src.services.runs.streams import RunStreams, RunSubscription
from src.utils.metrics import Metrics
from tests.support.builders import settings_of
from tests.support.samples import sample
from tests.support.waiting import until

if TYPE_CHECKING:
    from src.services.events.hub import EventHub
    from src.services.runs.follower import RunFollower
    from src.services.runs.manager import RunManager

USER = User(id=UUID(int=1), email="alice@example.org", role=Role.VIEWER)
SESSION = UUID(int=2)
STARTED = agui.run_started("thread", "run", {"timestamp": 1})
FINISHED = agui.run_finished("thread", "run", {}, {"timestamp": 2})


class Environment:
    """One client of a local run whose log the test extends."""

    def __init__(self, *, expires_in: float = 60.0, ends_run: bool = True) -> None:
        self.body = b""
        self.accepts_data = True
        self.cancelled: list[RunKey] = []
        self.draining = False
        self.metrics = Metrics()
        self.registry = StreamRegistry()
        self.log = RunLog([LogRecord.of(STARTED)])
        access = AccessToken(USER, SESSION, time.time() + expires_in)
        key = RunKey(USER.id, "run")
        self.subscription = RunSubscription(key, None, access, self.log, ends_run=ends_run)
        hub = cast("EventHub", self)
        server = StreamServer(hub, self.registry, self.metrics, settings_of())
        runs = SimpleNamespace(cancel=self.cancelled.append, draining=False)
        self.streams = RunStreams(
            server, cast("RunManager", runs), cast("RunFollower", None), self.metrics, 60.0
        )

    def write_now(self, frames: bytes) -> asyncio.Future[None] | None:
        if not self.accepts_data:
            return asyncio.get_running_loop().create_future()
        self.body += frames
        return None

    async def write(self, frames: bytes) -> None:
        self.body += frames

    def closed(self, reason: str) -> bool:
        count = sample(self.metrics, "ag_ui_streams_closed_total", scope="run", reason=reason)
        return count == 1 and sample(self.metrics, "ag_ui_streams_open", scope="run") == 0

    async def serve(self) -> None:
        async with asyncio.timeout(5):
            await self.streams.serve(self.subscription, self)


async def test_it_ends_with_the_run() -> None:
    environment = Environment()
    serving = asyncio.create_task(environment.serve())
    await until(lambda: b"RUN_STARTED" in environment.body)
    environment.log.append([LogRecord.of(FINISHED)])
    await serving
    assert environment.closed("run_ended")
    assert not environment.cancelled


async def test_it_ends_with_the_token() -> None:
    environment = Environment(expires_in=0.05)
    await environment.serve()
    assert environment.body.endswith(b": the token has expired\n\n")
    assert environment.closed("token_expired")
    assert not environment.cancelled


async def test_it_ends_with_the_session() -> None:
    environment = Environment()
    serving = asyncio.create_task(environment.serve())
    await until(lambda: b"RUN_STARTED" in environment.body)
    environment.registry.mark_outdated(AccessChange(USER.id, None, None, ends_sessions=True))
    environment.registry.verify(SESSION, None)
    await serving
    assert environment.body.endswith(b": the session has ended: log in again\n\n")
    assert environment.closed("session_ended")
    assert not environment.cancelled


async def test_maintenance_ends_the_stream_and_not_the_run() -> None:
    environment = Environment()
    serving = asyncio.create_task(environment.serve())
    await until(lambda: b"RUN_STARTED" in environment.body)
    environment.registry.end_all("maintenance")
    await serving
    notice, _, retry = environment.body.rpartition(b"\n\nretry: ")
    assert notice.endswith(b": maintenance: reconnect with the last id")
    assert 30_000 <= int(retry) <= 60_000
    assert environment.closed("maintenance")
    assert not environment.cancelled


@pytest.mark.parametrize("ends_run", [True, False])
async def test_a_disconnect_cancels_the_run_if_the_client_asked_for_that(*, ends_run: bool) -> None:
    environment = Environment(ends_run=ends_run)
    serving = asyncio.create_task(environment.serve())
    await until(lambda: b"RUN_STARTED" in environment.body)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert environment.closed("client_left")
    assert environment.cancelled == [environment.subscription.key] * ends_run


async def test_a_client_that_accepts_no_data_counts_as_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_stream_writer, "WRITE_TIMEOUT_SECONDS", 0.05)
    environment = Environment()
    environment.accepts_data = False
    await environment.serve()
    assert environment.body.endswith(b": too slow: reconnect with the last id\n\n")
    assert environment.closed("too_slow")
    assert environment.cancelled == [environment.subscription.key]
