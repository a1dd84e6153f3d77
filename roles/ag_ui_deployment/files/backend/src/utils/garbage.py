"""Collecting garbage: rarely, and at a time of our own choosing."""

import asyncio
import gc

from src.utils.background_task import BackgroundTask

_EVERY_SECONDS = 60.0


def collect_rarely() -> None:
    """What is loaded now stays, and events make no cycles.

    A full collection looks at every event that is kept for clients, while all of them wait; Python
    would begin one whenever there are many of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class GarbageCollector(BackgroundTask):
    """Connections that have ended leave cycles, which only a full collection finds."""

    def __init__(self) -> None:
        super().__init__("garbage-collector")

    async def _run(self) -> None:
        while not self._stop.is_set():
            self.status = "waiting"
            try:
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._stop.wait()
            except TimeoutError:
                gc.collect()
