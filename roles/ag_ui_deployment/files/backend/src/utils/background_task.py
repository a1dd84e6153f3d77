"""A loop that runs from the start of the process until it is asked to stop."""

import asyncio
import time
from abc import ABC, abstractmethod
from contextlib import suppress

import structlog

from src.utils.outages import explain

logger = structlog.get_logger(__name__)


class BackgroundTask(ABC):
    """A part of the process that works by itself.

    `status` says in words what the loop is doing, `why` what keeps it from its work; both are
    shown by /health.
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
        """How long the status has been what it is."""
        return time.monotonic() - self._since

    def waits_for(self, dependency: str, error: BaseException) -> bool:
        """Note an outage in the status; gives whether it is news."""
        before = self.status
        self.status = f"waiting for {dependency}"
        self.why = explain(error)
        return self.status != before

    def start(self) -> None:
        self._task = asyncio.create_task(self._run_logged(), name=self._name)

    async def stop(self) -> None:
        """Let the loop finish what it has in hand, and end."""
        self._stop.set()
        if self._task is not None:
            await self._task

    @property
    def failed(self) -> bool:
        """Whether the loop has ended without being asked to, which only a defect can do."""
        return self._task is not None and self._task.done() and not self._stop.is_set()

    async def _run_logged(self) -> None:
        try:
            await self._run()
        except Exception:
            logger.exception("background_task_failed", task=self._name)

    async def _pause(self, seconds: float) -> bool:
        """Wait; gives whether the time has passed without anybody asking to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return not self._stop.is_set()

    @abstractmethod
    async def _run(self) -> None:
        """Work until `_stop` is set."""
