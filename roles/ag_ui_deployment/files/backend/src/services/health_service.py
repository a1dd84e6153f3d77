"""Health: what works, what does not, and in which words an operator should hear it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from pydantic import BaseModel
from redis.asyncio import Redis

from src import __version__
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.redis import REDIS_ERRORS

CheckStatus = Literal["ok", "down", "failed"]
_CHECK_TIMEOUT = 1.5
_CACHED_FOR = 1.0
_WITHOUT_REDIS = "no new events arrive; open streams wait and continue by themselves"
_WITHOUT_DATABASE = "no logins and no job lists; live streams go on, events wait in Redis"


class Check(BaseModel):
    status: CheckStatus
    detail: str


class Health(BaseModel):
    """`degraded`: a dependency is away and part of the service with it. `unhealthy`: a defect."""

    status: Literal["healthy", "degraded", "unhealthy"]
    service: str
    version: str
    redis_connected: bool
    checks: dict[str, Check]


class HealthService:
    def __init__(
        self,
        service: str,
        redis: Redis,
        database: Database,
        consumer: BackgroundTask,
        tail: BackgroundTask,
    ) -> None:
        self._service = service
        self._redis = redis
        self._database = database
        self._consumer = consumer
        self._tail = tail
        self._lock = asyncio.Lock()
        self._cached: tuple[float, Health] | None = None

    async def health(self) -> Health:
        """Real answers of Redis and PostgreSQL, at most a second old."""
        async with self._lock:
            if self._cached is None or time.monotonic() - self._cached[0] > _CACHED_FOR:
                self._cached = (time.monotonic(), await self._check())
            return self._cached[1]

    async def _check(self) -> Health:
        redis, database = await asyncio.gather(
            _probe(self._redis.ping, REDIS_ERRORS, _WITHOUT_REDIS),
            _probe(self._database.ping, DATABASE_ERRORS, _WITHOUT_DATABASE),
        )
        checks = {
            "redis": redis,
            "database": database,
            "consumer": _task_check(self._consumer, "consuming"),
            "tail": _task_check(self._tail, "following"),
        }
        states = {check.status for check in checks.values()}
        return Health(
            status="unhealthy"
            if "failed" in states
            else "degraded"
            if "down" in states
            else "healthy",
            service=self._service,
            version=__version__,
            redis_connected=redis.status == "ok",
            checks=checks,
        )


async def _probe(
    ping: Callable[[], Awaitable[object]], errors: tuple[type[Exception], ...], without: str
) -> Check:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT):
            await ping()
    except errors as error:
        return Check(status="down", detail=f"does not answer ({type(error).__name__}): {without}")
    return Check(status="ok", detail="answers")


def _task_check(task: BackgroundTask, working: str) -> Check:
    if task.failed:
        return Check(status="failed", detail="ended by a defect: see the log, restart the instance")
    return Check(status="ok" if task.status == working else "down", detail=task.status)
