"""Runs the garbage collector rarely and at controlled times."""

import ctypes
import gc
from collections.abc import Callable

from src.utils.background_task import BackgroundTask

_EVERY_SECONDS = 60.0


def _find_malloc_trim() -> Callable[[int], int]:
    """The function malloc_trim of glibc, or a no-op with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda _keep: 0)


_trim = _find_malloc_trim()


def reduce_collections() -> None:
    """Freeze the loaded objects and raise the collection thresholds.

    A full collection traverses every buffered event and blocks the event loop meanwhile. With its
    default thresholds Python would start one whenever there are many events. Loaded modules stay, and
    events form no cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class GarbageCollector(BackgroundTask):
    """Collects garbage and returns free memory to the system once a minute.

    Closed connections leave reference cycles, which only a full collection finds. A burst of events
    fragments the heap, and glibc returns that memory only when malloc_trim is called.
    """

    def __init__(self) -> None:
        super().__init__("garbage-collector")

    async def _run(self) -> None:
        self.status = "waiting"
        while await self._pause(_EVERY_SECONDS):
            gc.collect()
            _trim(0)
