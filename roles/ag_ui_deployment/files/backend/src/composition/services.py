"""Builds, starts and stops the application: one part for each domain."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.composition.accounts import Accounts
from src.composition.agent import Agent
from src.composition.audit import Audit
from src.composition.auth import Auth
from src.composition.consumer import Consumer
from src.composition.events import Events
from src.composition.jobs import Jobs
from src.composition.operations import Operations
from src.composition.tools import Tools
from src.composition.uploads import Uploads
from src.config import Settings
from src.services.auth.revocation_watcher import RevocationWatcher
from src.services.litellm_client import LiteLLMClient
from src.utils.background_jobs import BackgroundJobs
from src.utils.background_task import BackgroundTask
from src.utils.circuit_breaker import CircuitBreaker
from src.utils.database import Database
from src.utils.garbage import GarbageCollector
from src.utils.large_bodies import LargeBodies
from src.utils.metrics import Metrics
from src.utils.redis import command_client

# Time for background jobs, such as sending an email, to finish at shutdown.
_LAST_WORK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Services:
    """All services of one process.

    Attributes:
        redis: The client for commands that do not block. Readers of streams have their own.
        background: Work that requests leave behind, such as sending an email.
        tasks: The background tasks by their name in the health report, except the audit log's.
    """

    settings: Settings
    database: Database
    redis: Redis
    metrics: Metrics
    background: BackgroundJobs
    large_bodies: LargeBodies
    gateway: LiteLLMClient
    audit: Audit
    auth: Auth
    accounts: Accounts
    events: Events
    consumer: Consumer
    jobs: Jobs
    tools: Tools
    uploads: Uploads
    agent: Agent
    operations: Operations
    tasks: Mapping[str, BackgroundTask]

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """Create all services. Nothing connects before start()."""
        database = Database(settings)
        redis = command_client(settings)
        metrics = Metrics()
        background = BackgroundJobs()
        gateway = LiteLLMClient(settings, CircuitBreaker.of(settings))
        audit = Audit.build(settings, database, metrics)
        auth = Auth.build(
            settings, database=database, redis=redis, audit=audit.logger, metrics=metrics
        )
        accounts = Accounts.build(
            settings,
            database=database,
            access=auth.access,
            audit=audit.logger,
            background=background,
        )
        events = Events.build(
            settings,
            database=database,
            redis=redis,
            open_streams=auth.open_streams,
            metrics=metrics,
        )
        consumer = Consumer.build(
            settings, database=database, redis=redis, audit=audit.logger, metrics=metrics
        )
        jobs = Jobs.build(settings, database=database, redis=redis, hub=events.hub)
        uploads = Uploads.build(settings, database=database, audit=audit.logger)
        tools = Tools.build(
            settings,
            database=database,
            gateway=gateway,
            jobs=jobs,
            audit=audit.logger,
            uploads=uploads.service,
            background=background,
        )
        agent = Agent.build(
            settings,
            database=database,
            redis=redis,
            gateway=gateway,
            tools=tools.service,
            auth=auth,
            events=events,
            audit=audit.logger,
            metrics=metrics,
        )
        revocation_watcher = RevocationWatcher(database, auth.access, auth.open_streams, agent.runs)
        tasks: dict[str, BackgroundTask] = {
            "consumer": consumer.task,
            "tail": events.tailer,
            "announcer": jobs.announcer,
            "access": revocation_watcher,
            **agent.tasks,
            **uploads.tasks,
            "audit_keeper": audit.signer,
            "audit_retention": audit.retention,
            "garbage": GarbageCollector(),
            "tool_call_retention": tools.history,
            "settings": audit.settings_changes,
        }
        operations = Operations.build(
            settings,
            database=database,
            redis=redis,
            events=events,
            consumer=consumer,
            audit=audit,
            auth=auth,
            agent=agent,
            tasks=tasks,
            upstreams={"gateway": gateway.breaker, "orchestrator": jobs.orchestrator.breaker},
            metrics=metrics,
        )
        tasks["instance_reporter"] = operations.instances
        return cls(
            settings=settings,
            database=database,
            redis=redis,
            metrics=metrics,
            background=background,
            large_bodies=LargeBodies(),
            gateway=gateway,
            audit=audit,
            auth=auth,
            accounts=accounts,
            events=events,
            consumer=consumer,
            jobs=jobs,
            tools=tools,
            uploads=uploads,
            agent=agent,
            operations=operations,
            tasks=tasks,
        )

    def start(self) -> None:
        """Start the background tasks. If a dependency is down, they wait for it."""
        for task in (self.audit.logger, *self.tasks.values()):
            task.start()

    def drain(self) -> None:
        """Close the streams and interrupt uploads. Runs of the agent may continue for the grace period."""
        self.events.hub.drain()
        self.uploads.service.drain()
        self.agent.drain()

    def end_streams_for_maintenance(self) -> None:
        """Close the streams. The process goes on, and so do runs of the agent."""
        self.auth.open_streams.end_all("maintenance")

    async def stop(self) -> None:
        self.drain()
        await self.agent.stop()
        await self.tools.stop()
        others = [task for name, task in self.tasks.items() if name not in self.agent.tasks]
        await asyncio.gather(*(task.stop() for task in others))
        await self.background.stop(_LAST_WORK_SECONDS)
        # After the other tasks: they may still record entries.
        await self.audit.logger.stop()
        for client in (self.redis, self.events.reader, self.consumer.reader):
            await client.aclose()
        await self.gateway.close()
        await self.jobs.orchestrator.close()
        self.tools.ssrf_guard.close()
        self.uploads.close()
        await self.auth.limits.close()
        await self.database.close()
