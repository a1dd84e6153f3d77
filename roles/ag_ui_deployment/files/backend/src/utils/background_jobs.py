"""Runs coroutines in the background."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

logger = structlog.get_logger(__name__)

_MAX_TASKS = 500


class BackgroundJobs:
    """Runs a bounded number of coroutines as tasks and logs their exceptions."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine, or log an error and close it if 500 are running."""
        if len(self._tasks) >= _MAX_TASKS:
            work.close()
            logger.error("background_job_refused", running=len(self._tasks))
            return
        task = asyncio.create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, seconds: float) -> None:
        """Wait up to `seconds` for running coroutines, then cancel them."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            logger.warning("background_jobs_cut", count=len(late))
            await asyncio.wait(late)

    async def _logged(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except Exception:
            logger.exception("background_job_failed")
