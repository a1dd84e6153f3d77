"""Builds, starts and stops the parts of the agent."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.composition.auth import Auth
from src.composition.events import Events
from src.config import Settings
from src.services.agent.agent_service import AgentService
from src.services.agent.conversations import ConversationService
from src.services.agent.retention import AgentRetention
from src.services.agent.token_budget import TokenBudget
from src.services.agent.toolbox import Toolbox
from src.services.agent.usage_report import UsageReport
from src.services.audit_logger import AuditLogger
from src.services.litellm_client import LiteLLMClient
from src.services.runs.follower import RunFollower
from src.services.runs.manager import RunManager
from src.services.runs.registry import RunRegistry
from src.services.runs.store import RunStore
from src.services.runs.streams import RunStreams
from src.services.runs.sweeper import RunSweeper
from src.services.tools.tool_service import ToolService
from src.utils.background_task import BackgroundTask
from src.utils.database import Database
from src.utils.metrics import Metrics
from src.utils.redis import reader_client


@dataclass(frozen=True, slots=True)
class Agent:
    """`reader` is the Redis client of the follower."""

    service: AgentService
    conversations: ConversationService
    runs: RunManager
    follower: RunFollower
    sweeper: RunSweeper
    retention: AgentRetention
    budget: TokenBudget
    usage: UsageReport
    streams: RunStreams
    reader: Redis

    @classmethod
    def build(  # noqa: PLR0913 - dependencies
        cls,
        settings: Settings,
        *,
        database: Database,
        redis: Redis,
        gateway: LiteLLMClient,
        tools: ToolService,
        auth: Auth,
        events: Events,
        audit: AuditLogger,
        metrics: Metrics,
    ) -> Self:
        reader = reader_client(settings)
        registry = RunRegistry(redis, settings.REDIS_STREAM_NAME)
        conversations = ConversationService(database, audit, settings)
        store = RunStore(database, audit)
        runs = RunManager(registry, store.persist, metrics, settings.SHUTDOWN_GRACE_SECONDS)
        follower = RunFollower(reader, registry, store)
        budget = TokenBudget(database, settings.AGENT_TOKENS_PER_DAY)
        service = AgentService(
            settings,
            database,
            gateway,
            Toolbox(tools, auth.limits),
            budget=budget,
            registry=registry,
            conversations=conversations,
            store=store,
            runs=runs,
        )
        streams = RunStreams(
            events.stream_server, runs, follower, metrics, settings.SSE_KEEPALIVE_SECONDS
        )
        return cls(
            service=service,
            conversations=conversations,
            runs=runs,
            follower=follower,
            sweeper=RunSweeper(store, registry, follower),
            retention=AgentRetention(database, audit, metrics, settings),
            budget=budget,
            usage=UsageReport(database),
            streams=streams,
            reader=reader,
        )

    @property
    def tasks(self) -> dict[str, BackgroundTask]:
        """The background tasks by their name in the health report."""
        return {
            "agent_runs": self.runs,
            "run_tail": self.follower,
            "run_sweeper": self.sweeper,
            "agent_retention": self.retention,
            "token_budget": self.budget,
        }

    def drain(self) -> None:
        """Refuse new runs and disconnect clients that follow runs of other instances.

        The runs of this instance may continue for the grace period.
        """
        self.runs.drain()
        self.follower.wake()

    async def stop(self) -> None:
        # The budget after the runs: they record their token usage when they end.
        for task in (self.retention, self.sweeper, self.runs, self.follower, self.budget):
            await task.stop()
        await self.reader.aclose()
