"""Builds health checks, metrics and the overview of the settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.composition.agent import Agent
from src.composition.audit import Audit
from src.composition.auth import Auth
from src.composition.consumer import Consumer
from src.composition.events import Events
from src.config import Settings
from src.services.operations.config_overview import ConfigOverview
from src.services.operations.health_service import HealthService
from src.services.operations.instance_reporter import InstanceReporter
from src.services.operations.operations_report import OperationsReporter
from src.services.operations.prometheus import MetricsService
from src.services.operations.readiness import ReadinessService
from src.utils.background_task import BackgroundTask
from src.utils.circuit_breaker import CircuitBreaker
from src.utils.database import Database
from src.utils.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Operations:
    health: HealthService
    readiness: ReadinessService
    prometheus: MetricsService
    config: ConfigOverview
    instances: InstanceReporter
    report: OperationsReporter

    @classmethod
    def build(  # noqa: PLR0913 - dependencies
        cls,
        settings: Settings,
        *,
        database: Database,
        redis: Redis,
        events: Events,
        consumer: Consumer,
        audit: Audit,
        auth: Auth,
        agent: Agent,
        tasks: Mapping[str, BackgroundTask],
        upstreams: Mapping[str, CircuitBreaker],
        metrics: Metrics,
    ) -> Self:
        stream, group = settings.REDIS_STREAM_NAME, settings.REDIS_CONSUMER_GROUP
        health = HealthService(
            settings,
            redis,
            database,
            consumer=consumer.task,
            audit=audit.logger,
            tasks=tasks,
            upstreams=upstreams,
        )
        readiness = ReadinessService(database, events.hub)
        instances = InstanceReporter(
            redis,
            stream=stream,
            name=settings.REDIS_CONSUMER_NAME,
            health=health,
            readiness=readiness,
            streams=auth.open_streams,
            runs=agent.runs,
        )
        return cls(
            health=health,
            readiness=readiness,
            prometheus=MetricsService(
                metrics=metrics,
                redis=redis,
                database=database,
                stream=stream,
                group=group,
                proxy_port=settings.PROXY_PORT,
            ),
            config=ConfigOverview(settings),
            instances=instances,
            report=OperationsReporter(database, instances, consumer.overview),
        )
