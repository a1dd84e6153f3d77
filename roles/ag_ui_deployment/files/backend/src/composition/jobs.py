"""Builds the jobs of Shield."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.config import Settings
from src.services.events.hub import EventHub
from src.services.jobs.announcer import JobAnnouncer
from src.services.jobs.job_service import JobService
from src.services.jobs.orchestrator_client import OrchestratorClient
from src.services.jobs.reconciler import JobReconciler
from src.services.tools.catalogue import JOB_KINDS
from src.utils.circuit_breaker import CircuitBreaker
from src.utils.database import Database


@dataclass(frozen=True, slots=True)
class Jobs:
    service: JobService
    announcer: JobAnnouncer
    reconciler: JobReconciler
    orchestrator: OrchestratorClient

    @classmethod
    def build(cls, settings: Settings, *, database: Database, redis: Redis, hub: EventHub) -> Self:
        orchestrator = OrchestratorClient(settings, CircuitBreaker.of(settings))
        reconciler = JobReconciler(orchestrator, settings.JOB_SILENT_SECONDS)
        return cls(
            service=JobService(database, hub, reconciler),
            announcer=JobAnnouncer(redis, database, settings.REDIS_STREAM_NAME, JOB_KINDS),
            reconciler=reconciler,
            orchestrator=orchestrator,
        )
