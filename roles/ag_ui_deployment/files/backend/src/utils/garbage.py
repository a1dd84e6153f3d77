"""Collecting garbage: rarely, and at a time of our own choosing."""

import ctypes
import gc
from collections.abc import Callable

from src.utils.background_task import BackgroundTask

_EVERY_SECONDS = 60.0


def _trim_of_the_c_library() -> Callable[[int], int]:
    """The function malloc_trim of glibc; with another C library one that does nothing."""
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda _keep: 0)


_trim = _trim_of_the_c_library()


def collect_rarely() -> None:
    """What is loaded now stays, and events make no cycles.

    A full collection looks at every event that is kept for clients, while all of them wait; Python
    would begin one whenever there are many of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class GarbageCollector(BackgroundTask):
    """Connections that have ended leave cycles, which only a full collection finds.

    Frames of a flood leave free memory between those that are kept; unless it is told to, the C
    library never gives that back to the system.
    """

    def __init__(self) -> None:
        super().__init__("garbage-collector")

    async def _run(self) -> None:
        self.status = "waiting"
        while await self._pause(_EVERY_SECONDS):
            gc.collect()
            _trim(0)
