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

StopReason = Literal["cancelled", "forbidden", "shutdown", "lost"]
# Returns False if the run was deleted with its conversation.
PersistRun = Callable[[RunKey, Sequence[LogRecord]], Awaitable[bool]]

# The end of a run is sent once it is stored, or after this many seconds.
_STORE_SECONDS = 2.0
_FAILURES: Mapping[StopReason, RunFailure] = {
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

    def __init__(
        self, key: RunKey, work: RunWork, registry: RunRegistry, store: PersistRun
    ) -> None:
        self.key = key
        self.log = work.log
        self._work = work
        self._registry = registry
        self._store = store
        # "finished", "cancelled" or the code of `RUN_ERROR`; None while it runs.
        self.outcome: str | None = None
        self._stop: StopReason | None = None
        self._stop_retries = asyncio.Event()
        self._work_task: asyncio.Task[Event] | None = None
        self._end_task: asyncio.Task[None] | None = None

    def start(self, done: Callable[["LocalRun"], None]) -> None:
        """Starts the run; calls `done` when its end has been stored and written."""
        self._work.begin()
        self._work_task = asyncio.create_task(self._do_work(), name=f"agent-run-{self.key.run_id}")
        self._end_task = asyncio.create_task(self._finish(), name=f"agent-end-{self.key.run_id}")
        self._end_task.add_done_callback(lambda _: done(self))

    def stop(self, reason: StopReason) -> None:
        """Ends the run and aborts its call to the model. The first reason is kept."""
        if self._stop is None and self._work_task is not None and not self._work_task.done():
            self._stop = reason
            self._work_task.cancel()

    async def recheck_permission(self) -> None:
        """Ends the run if its user has lost the permission."""
        if not await self._work.is_permitted():
            self.stop("forbidden")

    async def wait_closed(self, seconds: float) -> None:
        """Waits until the end is stored and written to Redis; stops retries after `seconds`."""
        if self._end_task is None:
            return
        await asyncio.wait([self._end_task], timeout=max(seconds, 0))
        self._stop_retries.set()
        await asyncio.wait([self._end_task])

    async def _finish(self) -> None:
        writing = asyncio.create_task(self._write())
        event, terminal = await self._terminal_event()
        is_kept = await self._store_in_time([*self.log.records, terminal])
        self.log.append([terminal])
        self.outcome = _outcome_of(event)
        logger.info("agent_run_ended", run_id=self.key.run_id, how=self.outcome)
        is_written = await writing
        if is_kept is None:
            is_kept = await self._retry(lambda: self._store(self.key, self.log.records))
        # Readers on other instances look for the end of an incomplete log only once its lease has
        # expired. If the end could not be written to Redis, the lease is left to expire.
        if self._stop != "lost" and (is_written or is_kept is False):
            await self._retry(lambda: self._release(is_stored=is_kept))

    async def _terminal_event(self) -> tuple[Event, LogRecord]:
        """Returns the last event; readers must get one even if the work failed unexpectedly."""
        assert self._work_task is not None  # noqa: S101 - set before this task was made
        await asyncio.wait([self._work_task])
        try:
            if self._work_task.cancelled():
                # Cancelled before its first step.
                event = self._stop_event(self._stop or "shutdown")
            else:
                event = self._work_task.result()
            return event, LogRecord.of(event)
        except Exception:
            logger.exception("agent_run_broke", run_id=self.key.run_id)
            event = INTERNAL.event()
            return event, LogRecord.of(event)

    async def _do_work(self) -> Event:
        """Runs the work and returns the last event."""
        try:
            return await self._work.run()
        except asyncio.CancelledError:
            if self._stop is None:
                return self._work.failed(INTERNAL)
            return self._stop_event(self._stop)
        except RunFailedError as error:
            logger.warning(
                "agent_run_failed",
                run_id=self.key.run_id,
                code=error.failure.code,
                cause=_cause_of(error),
            )
            return self._work.failed(error.failure)
        except Exception:
            logger.exception("agent_run_broke", run_id=self.key.run_id)
            return self._work.failed(INTERNAL)

    def _stop_event(self, reason: StopReason) -> Event:
        if reason == "cancelled":
            return self._work.cancelled()
        return self._work.failed(_FAILURES[reason])

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
            if _is_outage(error):
                logger.warning("agent_run_not_stored", run_id=self.key.run_id, error=str(error))
            else:
                logger.exception("agent_run_not_stored", run_id=self.key.run_id)
            return None

    async def _release(self, *, is_stored: bool | None) -> bool:
        if is_stored is False:
            await self._registry.delete(self.key)
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
                stored = await self._registry.append(self.key, self.log.records, sent)
            except REDIS_ERRORS as error:
                logger.warning("agent_log_behind", run_id=self.key.run_id, error=str(error))
                if self._stop_retries.is_set():
                    return False
                await backoff.wait(self._stop_retries)
                continue
            backoff.reset()
            if stored is None:
                self.stop("lost")
                return True
            sent = stored
        return True

    async def _retry(self, step: Callable[[], Awaitable[bool]]) -> bool | None:
        """Retries a step until it succeeds or the shutdown ends; sweepers find unfinished runs."""
        backoff = Backoff(0.5, 10.0)
        while True:
            try:
                return await step()
            except Exception as error:
                if not _is_outage(error):
                    logger.exception("agent_run_not_settled", run_id=self.key.run_id)
                    return None
                logger.warning("agent_run_not_settled", run_id=self.key.run_id, error=str(error))
                if self._stop_retries.is_set():
                    return None
                await backoff.wait(self._stop_retries)


def _is_outage(error: Exception) -> bool:
    """Whether it is an outage and not a defect."""
    return isinstance(error, REDIS_ERRORS) or is_outage(error)


def _outcome_of(terminal: Event) -> str:
    if terminal["type"] == "RUN_ERROR":
        return str(terminal["code"])
    return "cancelled" if terminal["outcome"]["type"] == "cancelled" else "finished"


def _cause_of(error: BaseException) -> str | None:
    return repr(error.__cause__) if error.__cause__ else None
