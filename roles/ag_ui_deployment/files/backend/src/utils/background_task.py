"""A loop that runs from the start of the process until its shutdown."""

import asyncio
import time
from abc import ABC, abstractmethod
from contextlib import suppress

import structlog

from src.utils.outages import explain

logger = structlog.get_logger(__name__)


class BackgroundTask(ABC):
    """A long-running loop with a status.

    `status` says what the loop is doing, `why` describes the outage that it waits for. /health shows
    both.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._status = "starting"
        self._since = time.monotonic()
        self.why: str | None = None

    @property
    def status(self) -> str:
        return self._status

    @status.setter
    def status(self, status: str) -> None:
        if status != self._status:
            self._status = status
            self._since = time.monotonic()
            self.why = None

    @property
    def seconds(self) -> float:
        """Seconds since the last change of the status."""
        return time.monotonic() - self._since

    def waits_for(self, dependency: str, error: BaseException) -> bool:
        """Set the status to waiting for a dependency. Returns whether this changes it."""
        before = self.status
        self.status = f"waiting for {dependency}"
        self.why = explain(error)
        return self.status != before

    def start(self) -> None:
        self._task = asyncio.create_task(self._run_logged(), name=self._name)

    async def stop(self) -> None:
        """Ask the loop to stop and wait until it has ended."""
        self._stop.set()
        if self._task is not None:
            await self._task

    @property
    def failed(self) -> bool:
        """Whether the loop has ended without being asked to stop, which is a bug."""
        return self._task is not None and self._task.done() and not self._stop.is_set()

    async def _run_logged(self) -> None:
        try:
            await self._run()
        except Exception:
            logger.exception("background_task_failed", task=self._name)

    async def _pause(self, seconds: float) -> bool:
        """Wait for `seconds` or until asked to stop. Returns False if asked to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return not self._stop.is_set()

    @abstractmethod
    async def _run(self) -> None:
        """Work until `_stop` is set."""
