"""Long-running work yields to other tasks."""

import asyncio
import time

from src.utils.event_loop import cooperative_iter, yield_control


async def test_iteration_keeps_the_order() -> None:
    assert [item async for item in cooperative_iter(range(1000))] == list(range(1000))


async def test_iteration_yields_to_other_tasks() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async for _ in cooperative_iter(range(20)):
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
    task.cancel()
    assert turns >= 5


async def test_yield_control_waits_for_busy_tasks_up_to_a_limit() -> None:
    done = 0

    async def busy(turns: int) -> None:
        nonlocal done
        for _ in range(turns):
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass
            done += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(busy(5))
    await yield_control(60)
    assert done == 5
    task = asyncio.create_task(busy(10_000))
    await yield_control(0.01)
    assert done < 1_000
    task.cancel()
