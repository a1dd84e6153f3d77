"""Publishes the state of this instance to Redis, so that each instance can tell the state of all."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from resource import getpagesize

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis

from src import __version__
from src.models.operations import InstanceStatus
from src.services.auth.stream_registry import StreamRegistry
from src.services.operations.health_service import HealthService
from src.services.operations.readiness import ReadinessService
from src.services.runs.manager import RunManager
from src.utils.background_task import BackgroundTask
from src.utils.redis import REDIS_ERRORS

logger = structlog.get_logger(__name__)

_EVERY_SECONDS = 5.0
_REMOVAL_TIMEOUT = 1.0
# An instance that reports no longer is shown for so long, and then removed.
_SHOWN_FOR = timedelta(minutes=10)


class InstanceReporter(BackgroundTask):
    """Reports the state of this instance every few seconds, and reads the reports of all."""

    def __init__(  # noqa: PLR0913 - dependencies
        self,
        redis: Redis,
        *,
        stream: str,
        name: str,
        health: HealthService,
        readiness: ReadinessService,
        streams: StreamRegistry,
        runs: RunManager,
    ) -> None:
        super().__init__("instance-reporter")
        self._redis = redis
        self._key = f"{stream}:instances"
        self._instance = name
        self._health = health
        self._readiness = readiness
        self._streams = streams
        self._runs = runs
        self._started_at = datetime.now(UTC)

    async def all(self) -> list[InstanceStatus]:
        """Returns the latest report of each instance, by name.

        Raises:
            REDIS_ERRORS: Redis is unavailable.
        """
        stored = await self._redis.hgetall(self._key)
        oldest = datetime.now(UTC) - _SHOWN_FOR
        found = []
        for report in stored.values():
            # Another release may report other fields.
            with suppress(ValidationError):
                status = InstanceStatus.model_validate_json(report)
                if status.reported_at >= oldest:
                    found.append(status)
        return sorted(found, key=lambda status: status.name)

    async def stop(self) -> None:
        await super().stop()
        with suppress(*REDIS_ERRORS):
            async with asyncio.timeout(_REMOVAL_TIMEOUT):
                await self._redis.hdel(self._key, self._instance)

    async def _run(self) -> None:
        while True:
            status = await self._describe()
            try:
                await self._redis.hset(self._key, self._instance, status.model_dump_json())
                await self._redis.expire(self._key, _SHOWN_FOR)
                self.status = "reporting"
            except REDIS_ERRORS as error:
                if self.waits_for("Redis", error):
                    logger.warning("instance_reporter_waits", error=str(error))
            if not await self._pause(_EVERY_SECONDS):
                return

    async def _describe(self) -> InstanceStatus:
        # Not cached: a request for /health must not get a report from before a change that it follows.
        health = await self._health.check()
        return InstanceStatus(
            name=self._instance,
            version=__version__,
            started_at=self._started_at,
            reported_at=datetime.now(UTC),
            status=health.status,
            problems={
                name: check.detail for name, check in health.checks.items() if check.status != "ok"
            },
            not_ready=await self._readiness.not_ready_reason(),
            open_streams=self._streams.count,
            agent_runs=len(self._runs),
            resident_bytes=_resident_bytes(),
        )


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * getpagesize()
