"""The health report: the state of each dependency and task, explained for operators."""

import asyncio
import time
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src import __version__
from src.config import Settings
from src.services.audit_logger import AuditLogger
from src.services.operations.database_rights import missing_privileges
from src.services.redis_consumer import RedisStreamConsumer
from src.utils.background_task import BackgroundTask
from src.utils.circuit_breaker import CircuitBreaker
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.outages import explain, refuses_writes
from src.utils.redis import REDIS_ERRORS

CheckStatus = Literal["ok", "down", "failed"]
_CHECK_TIMEOUT = 1.5
_CACHE_SECONDS = 1.0

_WITHOUT_REDIS = (
    "no new events arrive; logins, job lists and stored history work, open streams wait and "
    "continue by themselves. Look at the server in REDIS_URL and the network to it."
)
_READ_ONLY_REDIS = (
    "nobody can publish; what is on the stream is still delivered and stored. Look at the memory "
    "and the disk of the server in REDIS_URL."
)
_WITHOUT_DATABASE = (
    "no logins, job lists and stored history; live streams go on, events wait in Redis. Look at "
    "the server in DATABASE_URL and the network to it."
)
_WITHOUT_RIGHTS = (
    "answers, and does not let the account in DATABASE_URL use {}: what needs them is answered 503, or "
    "waits. `python -m src.cli migrate` gives it its rights, with --owner where another role owns the tables."
)
_NOTHING_STORED = (
    "events wait in Redis, which keeps them until the stream has reached its MAXLEN; live streams "
    "go on. The log has the error, /metrics how much waits (ag_ui_group_lag, ag_ui_group_pending)."
)
_NOTHING_NEW = "open streams get nothing new; they keep their place and continue by themselves."
_NOTHING_ANNOUNCED = "streams learn later whose the jobs are that are accepted meanwhile."
_NOTHING_AUDITED = "entries of the audit log wait in memory and are stored when it is back"
_UNAUDITED = "entries stand in the journal only, see audit_entry_dropped there"
_AFTER_A_LOSS = (
    "Look for entries_lost in the log; raise the stream's MAXLEN, or see why storing fell behind."
)
_WITHOUT_UPSTREAM = {
    "gateway": "no tools and no agent; streams, history and administration work. Look at the server "
    "in LITELLM_URL and the network to it.",
    "orchestrator": "jobs whose events stay away are shown as the stream left them. Look at the "
    "server in ORCHESTRATOR_URL and the network to it.",
}
# Dependencies whose outage does not degrade the service. The orchestrator only complements the stream.
_OPTIONAL_DEPENDENCIES = frozenset({"orchestrator"})
# Tasks that are down while they wait.
_REQUIRED_TASKS = frozenset({"consumer", "tail", "announcer"})
_DEFECT = "ended by a defect: see background_task_failed in the log, restart the instance"


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
    """Makes health reports.

    `upstreams` are the circuit breakers of servers that are called only on demand. Of `tasks`, all but
    `_REQUIRED_TASKS` are only "ok" or "failed": they wait for dependencies, which have their own checks.
    """

    def __init__(  # noqa: PLR0913 - dependencies
        self,
        settings: Settings,
        redis: Redis,
        database: Database,
        *,
        consumer: RedisStreamConsumer,
        audit: AuditLogger,
        tasks: Mapping[str, BackgroundTask],
        upstreams: Mapping[str, CircuitBreaker],
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._database = database
        self._consumer = consumer
        self._audit = audit
        self._tasks = tasks
        self._upstreams = upstreams
        self._lock = asyncio.Lock()
        self._cached: tuple[float, Health] | None = None
        self._down_since: dict[str, float] = {}

    async def health(self) -> Health:
        """Make a report with actual queries to Redis and PostgreSQL. It is cached for one second."""
        async with self._lock:
            if self._cached is None or time.monotonic() - self._cached[0] > _CACHE_SECONDS:
                health = await self.check()
                # Dated after the checks, so that requests that waited for slow checks share the result.
                self._cached = (time.monotonic(), health)
            return self._cached[1]

    async def check(self) -> Health:
        """Make a report that is not cached."""
        (connected, redis), database = await asyncio.gather(
            self._check_redis(), self._check_database()
        )
        checks = {
            "redis": redis,
            "database": database,
            "consumer": self._check_consumer(),
            "tail": _check_task(self._tasks["tail"], "following", _NOTHING_NEW),
            "announcer": _check_task(self._tasks["announcer"], "announcing", _NOTHING_ANNOUNCED),
            **{name: _check_upstream(name, breaker) for name, breaker in self._upstreams.items()},
            **{
                name: _check_running(task)
                for name, task in self._tasks.items()
                if name not in _REQUIRED_TASKS
            },
            "audit": self._check_audit(),
        }
        states = {
            check.status for name, check in checks.items() if name not in _OPTIONAL_DEPENDENCIES
        }
        return Health(
            status="unhealthy"
            if "failed" in states
            else "degraded"
            if "down" in states
            else "healthy",
            service=self._settings.APP_NAME,
            version=__version__,
            redis_connected=connected,
            checks=checks,
        )

    async def _check_redis(self) -> tuple[bool, Check]:
        """Check Redis. Returns whether it answers, and the check."""
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await self._redis.ping()
                await self._write_test()
        except REDIS_ERRORS as error:
            if refuses_writes(error):
                return True, self._outage_check("redis", "Redis", error, _READ_ONLY_REDIS)
            return False, self._outage_check("redis", "Redis", error, _WITHOUT_REDIS)
        self._down_since.pop("redis", None)
        return True, Check(status="ok", detail="answers")

    async def _write_test(self) -> None:
        """Issue a write without effect: register the consumer with its group, as it already is."""
        settings = self._settings
        try:
            await self._redis.xgroup_createconsumer(
                settings.REDIS_STREAM_NAME,
                settings.REDIS_CONSUMER_GROUP,
                settings.REDIS_CONSUMER_NAME,
            )
        except ResponseError as error:
            if refuses_writes(error):
                raise

    async def _check_database(self) -> Check:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await self._database.ping()
                missing = await missing_privileges(self._database)
        except DATABASE_ERRORS as error:
            return self._outage_check("database", "PostgreSQL", error, _WITHOUT_DATABASE)
        self._down_since.pop("database", None)
        if missing:
            return Check(status="down", detail=_WITHOUT_RIGHTS.format(", ".join(missing)))
        return Check(status="ok", detail="answers")

    def _outage_check(
        self, name: str, server: str, error: BaseException, consequence: str
    ) -> Check:
        """A failed check with the duration of the outage, as noticed by the readers or here."""
        now = time.monotonic()
        durations = [now - self._down_since.setdefault(name, now)]
        durations += [
            task.seconds
            for task in (self._consumer, self._tasks["tail"])
            if task.status == f"waiting for {server}"
        ]
        return Check(
            status="down",
            detail=f"{explain(error)}, for {_format_duration(max(durations))}: {consequence}",
        )

    def _check_consumer(self) -> Check:
        check = _check_task(self._consumer, "consuming", _NOTHING_STORED)
        loss = self._consumer.losses.recent()
        if loss is not None:
            ago, description = loss
            check.detail += f"; {_format_duration(ago)} ago {description}. {_AFTER_A_LOSS}"
        return check

    def _check_audit(self) -> Check:
        waiting = f"{self._audit.waiting} {_NOTHING_AUDITED}"
        check = _check_task(self._audit, "ready", waiting)
        if self._audit.dropped:
            check.detail += f"; {self._audit.dropped} {_UNAUDITED}"
        return check


def _check_running(loop: BackgroundTask) -> Check:
    if loop.failed:
        return Check(status="failed", detail=_DEFECT)
    return Check(status="ok", detail=loop.status)


def _check_task(task: BackgroundTask, ready_status: str, consequence: str) -> Check:
    if task.failed:
        return Check(status="failed", detail=_DEFECT)
    if task.status == ready_status:
        return Check(status="ok", detail=ready_status)
    reason = f", which {task.why}" if task.why else ""
    return Check(
        status="down",
        detail=f"{task.status}{reason}, for {_format_duration(task.seconds)}: {consequence}",
    )


def _check_upstream(name: str, breaker: CircuitBreaker) -> Check:
    if breaker.is_open:
        return Check(status="down", detail=f"{breaker.describe()}: {_WITHOUT_UPSTREAM[name]}")
    return Check(status="ok", detail=breaker.describe())


def _format_duration(seconds: float) -> str:
    """Format a duration in hours, minutes or seconds."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
