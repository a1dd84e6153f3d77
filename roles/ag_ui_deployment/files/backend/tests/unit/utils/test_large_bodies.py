"""Large bodies queue for a slot, and are refused after a timeout."""

import asyncio
import threading
import time
from uuid import uuid4

import pytest

from src.utils.large_bodies import LargeBodies, TooManyBodiesError, TooManyBodiesOfUserError

ALICE, BOB, CAROL = uuid4(), uuid4(), uuid4()


async def test_one_body_per_user_at_a_time() -> None:
    bodies = LargeBodies(max_slots=2, wait_seconds=0.01)
    async with bodies.slot(ALICE):
        with pytest.raises(TooManyBodiesOfUserError):
            async with bodies.slot(ALICE):
                pass
        async with bodies.slot(BOB):
            pass
    async with bodies.slot(ALICE):
        pass


async def test_limited_number_of_bodies_per_instance() -> None:
    bodies = LargeBodies(max_slots=2, wait_seconds=0.01)
    async with bodies.slot(ALICE), bodies.slot(BOB):
        with pytest.raises(TooManyBodiesError):
            async with bodies.slot(CAROL):
                pass
    # A refused body occupies no slot.
    async with bodies.slot(CAROL), bodies.slot(ALICE):
        pass


async def test_slots_are_given_in_order_of_arrival() -> None:
    bodies = LargeBodies(max_slots=1, wait_seconds=60)
    order: list[str] = []

    async def wait_for_slot(name: str) -> None:
        async with bodies.slot(uuid4()):
            order.append(name)

    async with bodies.slot(ALICE):
        waiting = [
            asyncio.create_task(wait_for_slot(name)) for name in ("first", "second", "third")
        ]
        await asyncio.sleep(0)
        assert order == []
    await asyncio.gather(*waiting)
    assert order == ["first", "second", "third"]


async def test_failure_and_cancellation_release_the_slot() -> None:
    bodies = LargeBodies(max_slots=1, wait_seconds=60)
    with pytest.raises(ValueError, match="broken"):
        async with bodies.slot(ALICE):
            raise ValueError("broken")
    async with bodies.slot(ALICE):
        for user in (ALICE, BOB):
            waiting = asyncio.create_task(bodies.slot(user).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    async with bodies.slot(ALICE):
        pass


async def test_one_body_is_parsed_at_a_time() -> None:
    bodies = LargeBodies()
    at_work = threading.Lock()

    def parse(body: bytes) -> int:
        assert at_work.acquire(blocking=False)
        time.sleep(0.01)
        at_work.release()
        return len(body)

    parsed = await asyncio.gather(*(bodies.parse(parse, b"x" * size) for size in range(5)))
    assert parsed == [0, 1, 2, 3, 4]
