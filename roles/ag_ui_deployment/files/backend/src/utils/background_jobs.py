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

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine, or log an error and close it if 500 are running."""
        if len(self._tasks) >= _MAX_TASKS:
            coroutine.close()
            logger.error("background_job_refused", running=len(self._tasks))
            return
        task = asyncio.create_task(self._logged(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, seconds: float) -> None:
        """Wait up to `seconds` for running coroutines, then cancel them."""
        if not self._tasks:
            return
        _, unfinished = await asyncio.wait(self._tasks, timeout=seconds)
        for task in unfinished:
            task.cancel()
        if unfinished:
            logger.warning("background_jobs_cut", count=len(unfinished))
            await asyncio.wait(unfinished)

    async def _logged(self, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            await coroutine
        except Exception:
            logger.exception("background_job_failed")
