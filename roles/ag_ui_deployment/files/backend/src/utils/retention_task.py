"""Periodic deletion of old rows, by one instance at a time."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database

# Deletes or updates some rows in a transaction, and returns how many.
BatchStep = Callable[[AsyncSession], Awaitable[int]]


class RetentionTask(BackgroundTask):
    """A loop that deletes old rows. Every instance runs it.

    Attributes:
        lock_key: The key of the advisory lock that admits one instance at a time.
        outage_event: The log event while PostgreSQL is unavailable.
        failure_event: The log event after other errors.
        first_seconds: Delay after the start of the process, when other work has priority.
        every_seconds: Delay between runs.
    """

    lock_key: ClassVar[int]
    outage_event: ClassVar[str]
    failure_event: ClassVar[str]
    first_seconds: ClassVar[float]
    every_seconds: ClassVar[float]

    def __init__(self, name: str, database: Database) -> None:
        super().__init__(name)
        self._database = database
        self._logger = structlog.get_logger(type(self).__module__)

    async def retain_if_alone(self) -> None:
        """Delete what is old, unless another instance is doing it."""
        async with self._database.alone(self.lock_key) as is_held:
            if is_held:
                await self._retain()

    async def _run(self) -> None:
        self.status = "waiting"
        pause = self.first_seconds
        while await self._pause(pause):
            pause = self.every_seconds
            try:
                await self._run_once()
            except DATABASE_ERRORS as error:
                self._logger.warning(self.outage_event, error=str(error))
            except Exception:
                self._logger.exception(self.failure_event)

    async def _run_once(self) -> None:
        await self.retain_if_alone()

    @abstractmethod
    async def _retain(self) -> object:
        """Delete what is old. Called while the lock is held."""

    async def _in_batches(self, step: BatchStep) -> int:
        """Repeat a step in small transactions until it finds nothing. Returns the total."""
        total = 0
        while not self._stop.is_set():
            async with self._database.transaction() as session:
                count = await step(session)
            if not count:
                break
            total += count
        return total
