"""An instance of the backend that also records audit entries continuously.

Run as `python -m bench.recorder --rate N` (N entries per second, without waiting for storage) or
`--callers N` (N callers, each of which records the next entry when its last one is stored), in the
backend's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from src import cli
from src.composition.services import Services
from src.services.audit_logger import Action, AuditEvent

if TYPE_CHECKING:
    from collections.abc import Coroutine

_TICK_SECONDS = 0.01
_EVENT = AuditEvent(
    Action.TOOL_CALL,
    actor="bench@example.org",
    target="tool:crawl_web",
    details={"workspace": "default", "job_id": "7d0d6a44-2f39-4a4b-9c43-6a0f6a3a2b11"},
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.recorder", description=__doc__)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--rate", type=float)
    how.add_argument("--callers", type=int)
    options = parser.parse_args()
    start = Services.start
    recording: set[asyncio.Task[None]] = set()

    def start_and_record(services: Any) -> None:
        start(services)
        work = _at_a_rate(services, options.rate) if options.rate else None
        recording.add(asyncio.create_task(work or _one_after_the_other(services, options.callers)))

    Services.start = start_and_record
    return int(cli.main(["serve"]))


async def _at_a_rate(services: Any, rate: float) -> None:
    began, recorded = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while not services.events.hub.draining:
            due = int((time.monotonic() - began) * rate)
            for _ in range(due - recorded):
                group.create_task(services.audit.logger.record(_EVENT))
            recorded = due
            await asyncio.sleep(_TICK_SECONDS)


async def _one_after_the_other(services: Any, callers: int) -> None:
    async def caller() -> None:
        while not services.events.hub.draining:
            await services.audit.logger.record(_EVENT)

    calls: list[Coroutine[Any, Any, None]] = [caller() for _ in range(callers)]
    await asyncio.gather(*calls)


if __name__ == "__main__":
    sys.exit(main())
