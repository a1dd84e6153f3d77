"""Builds, starts and stops the parts of the agent."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.config import Settings
from src.services.agent.agent_service import AgentService
from src.services.agent.conversations import ConversationService
from src.services.agent.retention import AgentRetention
from src.services.agent.storage_limits import StorageLimits
from src.services.agent.token_budget import TokenBudget
from src.services.agent.toolbox import Toolbox
from src.services.audit_logger import AuditLogger
from src.services.auth.rate_limits import RateLimits
from src.services.auth.stream_registry import StreamRegistry
from src.services.events.streams import EventStreams
from src.services.litellm_client import LiteLLMClient
from src.services.runs.follower import RunFollower
from src.services.runs.manager import RunManager
from src.services.runs.registry import RunRegistry
from src.services.runs.store import RunStore
from src.services.runs.streams import RunStreams
from src.services.runs.sweeper import RunSweeper
from src.services.tools.tool_service import ToolService
from src.utils.database import Database
from src.utils.metrics import Metrics
from src.utils.redis import reader_client


@dataclass(frozen=True, slots=True)
class Agent:
    """The services of the agent."""

    service: AgentService
    conversations: ConversationService
    store: RunStore
    runs: RunManager
    tail: RunFollower
    sweeper: RunSweeper
    retention: AgentRetention
    budget: TokenBudget
    streams: RunStreams
    reader: Redis

    @classmethod
    def build(  # noqa: PLR0913 - dependencies
        cls,
        settings: Settings,
        *,
        database: Database,
        commands: Redis,
        gateway: LiteLLMClient,
        tools: ToolService,
        limits: RateLimits,
        streams: EventStreams,
        open_streams: StreamRegistry,
        audit: AuditLogger,
        metrics: Metrics,
    ) -> Self:
        reader = reader_client(settings)
        registry = RunRegistry(commands, settings.REDIS_STREAM_NAME)
        conversations = ConversationService(database, audit, StorageLimits.of(settings))
        store = RunStore(database, audit)
        runs = RunManager(registry, store.persist, metrics, settings.SHUTDOWN_GRACE_SECONDS)
        tail = RunFollower(reader, registry, store)
        budget = TokenBudget(database, settings.AGENT_TOKENS_PER_DAY)
        service = AgentService(
            settings,
            database,
            gateway,
            Toolbox(tools, limits),
            budget=budget,
            registry=registry,
            conversations=conversations,
            store=store,
            runs=runs,
        )
        run_streams = RunStreams(
            runs,
            tail,
            streams=streams,
            open_streams=open_streams,
            metrics=metrics,
            keep_alive_seconds=settings.SSE_KEEPALIVE_SECONDS,
        )
        sweeper = RunSweeper(store, registry, tail)
        retention = AgentRetention(database, audit, metrics, settings)
        return cls(
            service,
            conversations,
            store,
            runs,
            tail,
            sweeper,
            retention,
            budget,
            run_streams,
            reader,
        )

    def start(self) -> None:
        self.runs.start()
        self.tail.start()
        self.sweeper.start()
        self.retention.start()
        self.budget.start()

    def drain(self) -> None:
        """Refuse new runs and disconnect clients that follow runs of other instances.

        The runs of this instance may continue for the grace period.
        """
        self.runs.drain()
        self.tail.wake()

    async def stop(self) -> None:
        await self.retention.stop()
        await self.sweeper.stop()
        await self.runs.stop()
        await self.tail.stop()
        # After the runs: they record their token usage when they end.
        await self.budget.stop()
        await self.reader.aclose()
