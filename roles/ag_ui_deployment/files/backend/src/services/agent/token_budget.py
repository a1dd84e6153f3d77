"""Records the tokens that users consume, by day and model, and limits them per day."""

import asyncio
import math
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

import structlog

from src.repositories import token_usage
from src.repositories.token_usage import TokenCounts, UsageKey
from src.services.agent.errors import TokensSpentError
from src.services.gateway.chat_stream import Usage
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database, is_outage
from src.utils.redis import Backoff

logger = structlog.get_logger(__name__)


class TokenBudget(BackgroundTask):
    """Stores the usage in the background; retries during an outage of PostgreSQL."""

    def __init__(self, database: Database, per_day: int) -> None:
        """Creates the budget.

        Args:
            database: Where the usage is stored.
            per_day: The tokens of a user per UTC day; 0 for no limit.
        """
        super().__init__("token-budget")
        self._database = database
        self._tokens_per_day = per_day
        self._unstored: dict[UsageKey, TokenCounts] = {}
        self._has_usage = asyncio.Event()
        self._storing = asyncio.Lock()

    def record(self, user_id: UUID, model: str, usage: Usage) -> None:
        """Adds the usage of one answer of a model to the user's day."""
        key = UsageKey(user_id, _today(), model)
        self._merge(key, TokenCounts(usage.prompt_tokens, usage.completion_tokens))
        self._has_usage.set()

    async def check(self, user_id: UUID) -> None:
        """Checks the tokens of the day.

        Raises:
            TokensSpentError: The user has used them.
            DATABASE_ERRORS: PostgreSQL is unavailable.
        """
        if self._tokens_per_day and await self._used_tokens(user_id) >= self._tokens_per_day:
            raise TokensSpentError(_until_tomorrow())

    async def is_exhausted(self, user_id: UUID) -> bool:
        """Whether a run must end. During an outage of PostgreSQL it continues."""
        try:
            await self.check(user_id)
        except TokensSpentError:
            return True
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                raise
            logger.warning("token_budget_unknown", error=str(error))
        return False

    async def stop(self) -> None:
        self._stop.set()
        self._has_usage.set()
        await super().stop()
        try:
            await self._store()
        except DATABASE_ERRORS as error:
            logger.warning("token_usage_lost", entries=len(self._unstored), error=str(error))

    async def _used_tokens(self, user_id: UUID) -> int:
        await self._store()
        async with self._database.transaction() as session:
            return await token_usage.of_day(session, user_id, _today())

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            self.status = "waiting"
            await self._has_usage.wait()
            self._has_usage.clear()
            try:
                await self._store()
                backoff.reset()
            except DATABASE_ERRORS as error:
                if self.waits_for("PostgreSQL", error):
                    logger.warning("token_usage_waits", error=str(error))
                self._has_usage.set()
                await backoff.wait(self._stop)

    async def _store(self) -> None:
        async with self._storing:
            batch, self._unstored = self._unstored, {}
            if not batch:
                return
            try:
                async with self._database.transaction() as session:
                    await token_usage.add(session, batch)
            except BaseException as error:
                if isinstance(error, DATABASE_ERRORS) and not is_outage(error):
                    # A retry would fail too: the user may have been deleted, for example.
                    logger.exception("token_usage_dropped", entries=len(batch))
                    return
                for key, tokens in batch.items():
                    self._merge(key, tokens)
                raise

    def _merge(self, key: UsageKey, tokens: TokenCounts) -> None:
        total = self._unstored.get(key, TokenCounts(0, 0))
        self._unstored[key] = TokenCounts(total.input + tokens.input, total.output + tokens.output)


def _today() -> date:
    return datetime.now(UTC).date()


def _until_tomorrow() -> int:
    now = datetime.now(UTC)
    midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    return max(1, math.ceil((midnight - now).total_seconds()))
