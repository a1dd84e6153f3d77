"""Runs the agent in this process, independently of whether clients are connected."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import structlog

from src.services.agui.events import Event
from src.services.runs.errors import (
    INTERNAL,
    LOST,
    PERMISSION_LOST,
    SHUTDOWN,
    RunFailedError,
    RunFailure,
)
from src.services.runs.log import LogRecord, RunLog
from src.services.runs.registry import RunKey, RunRegistry
from src.utils.database import is_outage
from src.utils.redis import REDIS_ERRORS, Backoff

logger = structlog.get_logger(__name__)

Stop = Literal["cancelled", "forbidden", "shutdown", "lost"]
# Returns False if the run was deleted with its conversation.
Store = Callable[[RunKey, Sequence[LogRecord]], Awaitable[bool]]

# The end of a run is sent once it is stored, or after this many seconds.
_STORE_SECONDS = 2.0
_FAILURES: Mapping[Stop, RunFailure] = {
    "forbidden": PERMISSION_LOST,
    "shutdown": SHUTDOWN,
    "lost": LOST,
}


class RunWork(Protocol):
    """The work of a run. Appends all events except the last one to `log`."""

    log: RunLog

    def begin(self) -> None:
        """Appends the first event."""

    async def run(self) -> Event:
        """Does the work and returns the last event.

        Raises:
            RunFailedError: The run has failed.
        """

    async def is_permitted(self) -> bool:
        """Whether the user still has the permission to run it."""

    def cancelled(self) -> Event:
        """Returns the last event of a cancelled run."""

    def failed(self, failure: RunFailure) -> Event:
        """Returns the last event of a failed run."""


class LocalRun:
    """One run of this process: its work, its log in Redis, and its end."""

    def __init__(self, key: RunKey, loop: RunWork, registry: RunRegistry, store: Store) -> None:
        self.key = key
        self.log = loop.log
        self._loop = loop
        self._registry = registry
        self._store = store
        # "finished", "cancelled" or the code of `RUN_ERROR`; None while it runs.
        self.ended_as: str | None = None
        self._stop: Stop | None = None
        self._no_more = asyncio.Event()
        self._working: asyncio.Task[Event] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, done: Callable[["LocalRun"], None]) -> None:
        """Starts the run; calls `done` when its end has been stored and written."""
        self._loop.begin()
        self._working = asyncio.create_task(self._work(), name=f"agent-run-{self.key.run_id}")
        self._task = asyncio.create_task(self._go(), name=f"agent-end-{self.key.run_id}")
        self._task.add_done_callback(lambda _: done(self))

    def stop(self, why: Stop) -> None:
        """Ends the run and aborts its call to the model. The first reason is kept."""
        if self._stop is None and self._working is not None and not self._working.done():
            self._stop = why
            self._working.cancel()

    async def recheck_permission(self) -> None:
        """Ends the run if its user has lost the permission."""
        if not await self._loop.is_permitted():
            self.stop("forbidden")

    async def wait_closed(self, seconds: float) -> None:
        """Waits until the end is stored and written to Redis; stops retries after `seconds`."""
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=max(seconds, 0))
        self._no_more.set()
        await asyncio.wait([self._task])

    async def _go(self) -> None:
        writing = asyncio.create_task(self._write())
        event, ending = await self._ending()
        kept = await self._store_in_time([*self.log.records, ending])
        self.log.append([ending])
        self.ended_as = _how(event)
        logger.info("agent_run_ended", run_id=self.key.run_id, how=self.ended_as)
        is_written = await writing
        if kept is None:
            kept = await self._persist(lambda: self._store(self.key, self.log.records))
        # Readers on other instances look for the end of an incomplete log only once its lease has
        # expired. If the end could not be written to Redis, the lease is left to expire.
        if self._stop != "lost" and (is_written or kept is False):
            await self._persist(lambda: self._conclude(is_stored=kept))

    async def _ending(self) -> tuple[Event, LogRecord]:
        """Returns the last event; readers must get one even if the work failed unexpectedly."""
        assert self._working is not None  # noqa: S101 - set before this task was made
        await asyncio.wait([self._working])
        try:
            if self._working.cancelled():
                # Cancelled before its first step.
                event = self._stopped(self._stop or "shutdown")
            else:
                event = self._working.result()
            return event, LogRecord.of(event)
        except Exception:
            logger.exception("agent_run_broke", run_id=self.key.run_id)
            event = INTERNAL.event()
            return event, LogRecord.of(event)

    async def _work(self) -> Event:
        """Runs the work and returns the last event."""
        try:
            return await self._loop.run()
        except asyncio.CancelledError:
            if self._stop is None:
                return self._loop.failed(INTERNAL)
            return self._stopped(self._stop)
        except RunFailedError as error:
            logger.warning(
                "agent_run_failed",
                run_id=self.key.run_id,
                code=error.failure.code,
                cause=_why(error),
            )
            return self._loop.failed(error.failure)
        except Exception:
            logger.exception("agent_run_broke", run_id=self.key.run_id)
            return self._loop.failed(INTERNAL)

    def _stopped(self, why: Stop) -> Event:
        if why == "cancelled":
            return self._loop.cancelled()
        return self._loop.failed(_FAILURES[why])

    async def _store_in_time(self, records: Sequence[LogRecord]) -> bool | None:
        """Stores the run within the time limit.

        Returns:
            Whether the run is kept; None if it is not stored yet.
        """
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                return await self._store(self.key, records)
        except Exception as error:
            # The end must be sent even if it is not stored.
            if _passes(error):
                logger.warning("agent_run_not_stored", run_id=self.key.run_id, error=str(error))
            else:
                logger.exception("agent_run_not_stored", run_id=self.key.run_id)
            return None

    async def _conclude(self, *, is_stored: bool | None) -> bool:
        if is_stored is False:
            await self._registry.forget(self.key)
        else:
            await self._registry.finish(self.key, stored=bool(is_stored))
        return True

    async def _write(self) -> bool:
        """Appends the log to Redis until the end of the run; returns False if it gave up."""
        sent = 0
        backoff = Backoff()
        while not (self.log.ended and sent >= len(self.log.records)):
            changed = self.log.changed
            if sent >= len(self.log.records):
                await changed.wait()
                continue
            try:
                has = await self._registry.append(self.key, self.log.records, sent)
            except REDIS_ERRORS as error:
                logger.warning("agent_log_behind", run_id=self.key.run_id, error=str(error))
                if self._no_more.is_set():
                    return False
                await backoff.wait(self._no_more)
                continue
            backoff.reset()
            if has is None:
                self.stop("lost")
                return True
            sent = has
        return True

    async def _persist(self, step: Callable[[], Awaitable[bool]]) -> bool | None:
        """Retries a step until it succeeds or the shutdown ends; sweepers find unfinished runs."""
        backoff = Backoff(0.5, 10.0)
        while True:
            try:
                return await step()
            except Exception as error:
                if not _passes(error):
                    logger.exception("agent_run_not_settled", run_id=self.key.run_id)
                    return None
                logger.warning("agent_run_not_settled", run_id=self.key.run_id, error=str(error))
                if self._no_more.is_set():
                    return None
                await backoff.wait(self._no_more)


def _passes(error: Exception) -> bool:
    """Whether it is an outage and not a defect."""
    return isinstance(error, REDIS_ERRORS) or is_outage(error)


def _how(ending: Event) -> str:
    if ending["type"] == "RUN_ERROR":
        return str(ending["code"])
    return "cancelled" if ending["outcome"]["type"] == "cancelled" else "finished"


def _why(error: BaseException) -> str | None:
    return repr(error.__cause__) if error.__cause__ else None
