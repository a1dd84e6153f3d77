"""Builds, starts and stops the services of the application."""

import asyncio
from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.composition.agent import Agent
from src.config import Settings
from src.services.accounts.account_service import AccountService
from src.services.accounts.email_sender import EmailSender
from src.services.accounts.email_templates import EmailTemplates
from src.services.accounts.password_reset_service import PasswordResetService
from src.services.accounts.registration_service import RegistrationService
from src.services.accounts.workspace_service import WorkspaceService
from src.services.audit.checkpoint_signer import CheckpointSigner
from src.services.audit.keys import AuditKeys
from src.services.audit.log_service import AuditLogService
from src.services.audit.retention import AuditRetention
from src.services.audit.settings_changes import SettingsChanges
from src.services.audit.verifier import AuditVerifier
from src.services.audit_logger import AuditLogger
from src.services.auth.access_service import AccessService
from src.services.auth.devices import Devices
from src.services.auth.login_attempts import LoginAttempts
from src.services.auth.password_service import PasswordService
from src.services.auth.rate_limits import RateLimits
from src.services.auth.revocation_watcher import RevocationWatcher
from src.services.auth.second_factor_service import SecondFactorService
from src.services.auth.session_service import SessionService
from src.services.auth.stream_registry import StreamRegistry
from src.services.auth.tickets import TicketService
from src.services.auth.tokens import Tokens
from src.services.auth_service import AuthService
from src.services.consumer.dead_letters import DeadLetterService
from src.services.consumer.event_store import EventStore
from src.services.consumer.group_reader import ConsumerConfig
from src.services.consumer.stream_status import StreamOverview
from src.services.events.history import EventHistory
from src.services.events.hub import EventHub
from src.services.events.job_projector import JobProjector
from src.services.events.replay import EventReplay
from src.services.events.stream_tailer import StreamTailer
from src.services.events.streams import EventStreams
from src.services.jobs.announcer import JobAnnouncer
from src.services.jobs.job_service import JobService
from src.services.jobs.orchestrator_client import OrchestratorClient
from src.services.jobs.reconciler import JobReconciler
from src.services.litellm_client import LiteLLMClient
from src.services.operations.config_overview import ConfigOverview
from src.services.operations.health_service import HealthService
from src.services.operations.prometheus import MetricsService
from src.services.operations.readiness import ReadinessService
from src.services.redis_consumer import RedisStreamConsumer
from src.services.tools.catalogue import JOB_KINDS, ArgumentCheck
from src.services.tools.ssrf_guard import SsrfGuard
from src.services.tools.submissions import SubmissionService
from src.services.tools.tool_service import ToolService
from src.utils.background_jobs import BackgroundJobs
from src.utils.circuit_breaker import CircuitBreaker
from src.utils.database import Database
from src.utils.garbage import GarbageCollector
from src.utils.large_bodies import LargeBodies
from src.utils.metrics import Metrics
from src.utils.redis import command_client, reader_client

# Time for background jobs, such as sending an email, to finish at shutdown.
_LAST_WORK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Services:
    """All services of one process."""

    settings: Settings
    database: Database
    clients: tuple[Redis, ...]
    hub: EventHub
    metrics: Metrics
    tail: StreamTailer
    consumer: RedisStreamConsumer
    garbage: GarbageCollector
    open_streams: StreamRegistry
    streams: EventStreams
    audit: AuditLogger
    access: AccessService
    access_watcher: RevocationWatcher
    audit_keeper: CheckpointSigner
    audit_retention: AuditRetention
    audit_trail: AuditLogService
    settings_changes: SettingsChanges
    dead_letters: DeadLetterService
    stream_overview: StreamOverview
    config_overview: ConfigOverview
    auth: AuthService
    gateway: LiteLLMClient
    sessions: SessionService
    tickets: TicketService
    limits: RateLimits
    large_bodies: LargeBodies
    devices: Devices
    passwords: PasswordService
    accounts: AccountService
    workspaces: WorkspaceService
    second_factors: SecondFactorService
    resets: PasswordResetService
    registration: RegistrationService
    background: BackgroundJobs
    orchestrator: OrchestratorClient
    addresses: SsrfGuard
    announcer: JobAnnouncer
    submissions: SubmissionService
    tools: ToolService
    jobs: JobService
    health: HealthService
    exposition: MetricsService
    readiness: ReadinessService
    agent: Agent

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """Create all services. Nothing connects before start()."""
        database = Database(settings)
        commands = command_client(settings)
        tail_reader = reader_client(settings)
        group_reader = reader_client(settings)
        stream, max_bytes = settings.REDIS_STREAM_NAME, settings.EVENT_MAX_BYTES
        history = EventHistory(commands, database, stream, max_bytes)
        hub = EventHub(settings, JobProjector(history.of_jobs))
        metrics = Metrics()
        audit = AuditLogger(database, metrics)
        audit_keys = AuditKeys(settings.audit_keys)
        audit_keeper = CheckpointSigner(database, audit_keys, settings)
        audit_verifier = AuditVerifier(database, audit_keys)
        audit_retention = AuditRetention(database, audit_keeper, audit_verifier, audit, settings)
        settings_changes = SettingsChanges(database, audit_keys, audit, settings)
        garbage = GarbageCollector()
        tail = StreamTailer(tail_reader, history, hub, metrics, stream=stream, max_bytes=max_bytes)
        consumer = RedisStreamConsumer(
            group_reader, EventStore(database), ConsumerConfig.of(settings), metrics
        )
        gateway = LiteLLMClient(settings, CircuitBreaker.of(settings))
        open_streams = StreamRegistry()
        tokens = Tokens(settings)
        access = AccessService(database, tokens, settings)
        sessions = SessionService(database, tokens, access, audit, settings)
        streams = EventStreams(
            hub, EventReplay(history, settings.REPLAYS_MAX), open_streams, metrics, settings
        )
        background = BackgroundJobs()
        mails = EmailTemplates(EmailSender(settings), background, settings)
        limits = RateLimits(settings, metrics)
        resets = PasswordResetService(database, access, audit, mails)
        addresses = SsrfGuard(allow_private=settings.TOOLS_ALLOW_PRIVATE_ADDRESSES)
        announcer = JobAnnouncer(commands, database, stream, JOB_KINDS)
        orchestrator = OrchestratorClient(settings, CircuitBreaker.of(settings))
        silent = JobReconciler(orchestrator, settings.JOB_SILENT_SECONDS)
        submissions = SubmissionService(settings, database, announcer, silent, background)
        jobs = JobService(database, hub, silent)
        tools = ToolService(
            database,
            gateway=gateway,
            arguments=ArgumentCheck(settings, addresses),
            submissions=submissions,
            jobs=jobs,
            audit=audit,
            calls_per_user=settings.CALLS_PER_USER,
        )
        attempts = LoginAttempts(database, audit, settings)
        devices = Devices(settings)
        second_factors = SecondFactorService(database, access, attempts, settings)
        agent = Agent.build(
            settings,
            database=database,
            commands=commands,
            gateway=gateway,
            tools=tools,
            limits=limits,
            streams=streams,
            open_streams=open_streams,
            audit=audit,
            metrics=metrics,
        )
        access_watcher = RevocationWatcher(database, access, open_streams, agent.runs)
        return cls(
            settings=settings,
            database=database,
            clients=(commands, tail_reader, group_reader),
            hub=hub,
            metrics=metrics,
            tail=tail,
            consumer=consumer,
            garbage=garbage,
            open_streams=open_streams,
            streams=streams,
            gateway=gateway,
            audit=audit,
            audit_keeper=audit_keeper,
            audit_retention=audit_retention,
            audit_trail=AuditLogService(database, audit_verifier, audit),
            settings_changes=settings_changes,
            dead_letters=DeadLetterService(database, commands, stream, audit),
            stream_overview=StreamOverview(
                database, commands, stream, settings.REDIS_CONSUMER_GROUP
            ),
            config_overview=ConfigOverview(settings),
            access=access,
            access_watcher=access_watcher,
            auth=AuthService(attempts, sessions, second_factors, devices),
            sessions=sessions,
            tickets=TicketService(tokens, commands, stream),
            limits=limits,
            large_bodies=LargeBodies(),
            devices=devices,
            passwords=PasswordService(database, access, attempts, audit, devices),
            accounts=AccountService(database, access, audit),
            workspaces=WorkspaceService(database, access, audit),
            second_factors=second_factors,
            resets=resets,
            registration=RegistrationService(database, audit, resets, mails, settings),
            background=background,
            orchestrator=orchestrator,
            addresses=addresses,
            announcer=announcer,
            submissions=submissions,
            tools=tools,
            jobs=jobs,
            health=HealthService(
                settings.APP_NAME,
                commands,
                database,
                consumer,
                tail,
                announcer=announcer,
                loops={
                    "access": access_watcher,
                    "agent_runs": agent.runs,
                    "run_tail": agent.tail,
                    "run_sweeper": agent.sweeper,
                    "agent_retention": agent.retention,
                    "token_budget": agent.budget,
                    "audit_keeper": audit_keeper,
                    "audit_retention": audit_retention,
                    "garbage": garbage,
                    "settings": settings_changes,
                },
                upstreams={"gateway": gateway.breaker, "orchestrator": orchestrator.breaker},
                audit=audit,
            ),
            exposition=MetricsService(metrics, commands, stream, settings.REDIS_CONSUMER_GROUP),
            readiness=ReadinessService(database, hub),
            agent=agent,
        )

    def start(self) -> None:
        """Start the background tasks. If a dependency is down, they wait for it."""
        self.tail.start()
        self.consumer.start()
        self.announcer.start()
        self.garbage.start()
        self.access_watcher.start()
        self.agent.start()
        self.audit.start()
        self.audit_keeper.start()
        self.audit_retention.start()
        self.settings_changes.start()

    def drain(self) -> None:
        """Close the streams. Runs of the agent may continue for the grace period."""
        self.hub.drain()
        self.agent.drain()

    async def stop(self) -> None:
        self.drain()
        await self.agent.stop()
        await self.tools.wait_closed()
        self.submissions.stop()
        await asyncio.gather(
            self.consumer.stop(),
            self.tail.stop(),
            self.announcer.stop(),
            self.garbage.stop(),
            self.access_watcher.stop(),
            self.audit_keeper.stop(),
            self.audit_retention.stop(),
            self.settings_changes.stop(),
        )
        await self.background.stop(_LAST_WORK_SECONDS)
        # After the other tasks: they may still record entries.
        await self.audit.stop()
        for client in self.clients:
            await client.aclose()
        await self.gateway.close()
        await self.orchestrator.close()
        self.addresses.close()
        await self.limits.close()
        await self.database.close()
