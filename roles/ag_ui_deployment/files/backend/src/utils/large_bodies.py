"""Limits how many large request bodies are in memory at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from src.utils.errors import DomainError

# Bodies up to this size are not limited.
LARGE_BODY_BYTES = 64 * 1024
_MAX_SLOTS = 4
_WAIT_SECONDS = 10.0

_T = TypeVar("_T")


class TooManyBodiesOfUserError(DomainError):
    """Another large body of the same user is still being read."""

    status = 429
    slug = "too-many-large-bodies"
    title = "Another large request of yours is still being read"
    detail = "Bodies above 64 KiB are read one after the other. Send them so."
    retry_after = 5


class TooManyBodiesError(DomainError):
    """The instance reads the maximum number of large bodies already."""

    status = 503
    slug = "busy-with-large-bodies"
    title = "Too many large requests are being read"
    detail = "Bodies above 64 KiB are read a few at a time. Try again in a few seconds."
    retry_after = 5


class LargeBodies:
    """Admits one large body per user and a few per instance at a time. The others wait."""

    def __init__(self, max_slots: int = _MAX_SLOTS, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._slots = asyncio.Semaphore(max_slots)
        self._users: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._wait_seconds = wait_seconds
        self._parsing = asyncio.Lock()

    @asynccontextmanager
    async def slot(self, user_id: UUID) -> AsyncIterator[None]:
        """Waits for a slot and holds it within the block.

        Raises:
            TooManyBodiesOfUserError: Another body of the user held its slot for too long.
            TooManyBodiesError: No slot of the instance became free in time.
        """
        lock = self._users.setdefault(user_id, asyncio.Lock())
        await self._wait(lock, TooManyBodiesOfUserError)
        try:
            await self._wait(self._slots, TooManyBodiesError)
            try:
                yield
            finally:
                self._slots.release()
        finally:
            lock.release()

    async def parse(self, parser: Callable[[bytes], _T], body: bytes) -> _T:
        """Calls `parser` in a thread, so that the event loop stays responsive.

        Only one runs at a time: several threads would compete with the event loop for the GIL.
        """
        async with self._parsing:
            return await asyncio.to_thread(parser, body)

    async def _wait(
        self, slot: asyncio.Lock | asyncio.Semaphore, refusal: type[DomainError]
    ) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await slot.acquire()
        except TimeoutError:
            raise refusal from None
