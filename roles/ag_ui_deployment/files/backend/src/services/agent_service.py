"""Runs of the agent: begin, follow, cancel, and the conversations that they belong to."""

from collections.abc import Collection
from contextlib import suppress

from ag_ui.core import AgentCapabilities

from src.config import Settings
from src.models.agent_input import RunInput
from src.models.conversation import Run, RunStatus
from src.models.permissions import Permission
from src.models.user import User
from src.models.workspace import DEFAULT_WORKSPACE
from src.repositories import users as user_rows
from src.services import rbac_service
from src.services.agent_capabilities import capabilities_of
from src.services.agent_loop import AgentLoop, Model, Tools
from src.services.agent_runs import AgentRuns
from src.services.conversation_service import ConversationService, RunExistsError, RunNotFoundError
from src.services.rbac_service import NotPermittedError
from src.services.run_log import RunLog
from src.services.run_registry import RunKey, RunRegistry
from src.services.run_tail import RunTail
from src.utils.database import DATABASE_ERRORS, Database, is_outage
from src.utils.redis import REDIS_ERRORS


class TooManyRunsError(Exception):
    """The user has as many runs on as they may."""


class AgentDrainingError(Exception):
    """This process is being stopped."""


class RunLogUnavailableError(Exception):
    """Redis does not answer: a run could not be resumed, nor cancelled."""


class AgentService:
    def __init__(  # noqa: PLR0913 - its surroundings, each of them once
        self,
        settings: Settings,
        database: Database,
        model: Model,
        tools: Tools,
        *,
        registry: RunRegistry,
        conversations: ConversationService,
        runs: AgentRuns,
        tail: RunTail,
    ) -> None:
        self._settings = settings
        self._database = database
        self._model = model
        self._tools = tools
        self._registry = registry
        self._runs = runs
        self._tail = tail
        self.conversations = conversations

    @property
    def tool_names(self) -> Collection[str]:
        """Of the agent's own tools; a client's must have other names."""
        return self._tools.names

    async def begin(self, user: User, request: RunInput) -> RunKey:
        """Start a run, which goes on by itself.

        Raises WorkspaceNotFoundError, NotPermittedError, TooManyRunsError, RunExistsError,
        ThreadElsewhereError, AgentDrainingError or RunLogUnavailableError.
        """
        await self._tools.check_workspace(user, request.workspace)
        rbac_service.check(user, Permission.RUN_AGENT, request.workspace)
        if self._runs.draining:
            raise AgentDrainingError
        key = RunKey(user.id, request.run_id)
        await self._take(key)
        try:
            await self.conversations.begin(user, request)
        except BaseException:
            await self._let_go(key)
            raise
        self._runs.begin(key, self._loop(user, request))
        try:
            # While the model thinks.
            await self.conversations.note_begin(user, request)
        except BaseException:
            self._runs.cancel(key)
            raise
        return key

    async def capabilities(self, user: User) -> AgentCapabilities:
        offered = await self._tools.offered(user, DEFAULT_WORKSPACE)
        return capabilities_of(offered, self._settings.AGENT_MAX_ROUNDS)

    async def find(self, user: User, run_id: str) -> tuple[RunKey, RunLog | None]:
        """A run to follow; with its log if it has ended and is not in Redis any more.

        A user's own is found without PostgreSQL while it is on. Raises RunNotFoundError.
        """
        own = RunKey(user.id, run_id)
        if self._runs.log(own) or await self._is_in_redis(own):
            return own, None
        row = await self.conversations.run(user, run_id)
        key = RunKey(row.owner_id, run_id)
        if row.status is RunStatus.RUNNING:
            return key, None
        stored = await self.conversations.stored(key)
        if stored is None:
            raise RunNotFoundError
        return key, RunLog(stored)

    async def get(self, user: User, run_id: str) -> Run:
        """Raises RunNotFoundError."""
        run = await self.conversations.run(user, run_id)
        key = RunKey(run.owner_id, run_id)
        if run.status is RunStatus.RUNNING and self._runs.log(key) is None:
            self._tail.suspect(key)
        return run

    async def cancel(self, user: User, run_id: str) -> None:
        """Ask for a run's end, wherever it goes on.

        Raises RunNotFoundError, NotPermittedError or RunLogUnavailableError.
        """
        if self._runs.cancel(RunKey(user.id, run_id)):
            return
        run = await self.get(user, run_id)
        rbac_service.check(user, Permission.RUN_AGENT, run.workspace)
        if run.status is RunStatus.RUNNING:
            await self._cancel(RunKey(run.owner_id, run_id))

    async def delete_thread(self, user: User, thread_id: str) -> None:
        """With its runs; those that are on end. Raises ThreadNotFoundError."""
        for key in await self.conversations.delete(user, thread_id):
            if not self._runs.cancel(key):
                await self._forget(key)

    async def _cancel(self, key: RunKey) -> None:
        if self._runs.cancel(key):
            return
        try:
            await self._registry.ask_to_cancel(key)
        except REDIS_ERRORS as error:
            raise RunLogUnavailableError from error

    async def _take(self, key: RunKey) -> None:
        try:
            begun = await self._registry.begin(key, self._settings.RUNS_PER_USER)
        except REDIS_ERRORS as error:
            raise RunLogUnavailableError from error
        if begun == "exists":
            raise RunExistsError
        if begun == "full":
            raise TooManyRunsError

    async def _let_go(self, key: RunKey) -> None:
        # Else its lease runs out by itself.
        with suppress(*REDIS_ERRORS):
            await self._registry.forget(key)

    async def _forget(self, key: RunKey) -> None:
        """A run that was deleted: the process that is at work on it finds that out at its end."""
        # Else the log goes when its time is over.
        with suppress(*REDIS_ERRORS):
            if not await self._registry.withdraw(key):
                await self._registry.forget(key)

    async def _is_in_redis(self, key: RunKey) -> bool:
        try:
            return await self._registry.has_log(key)
        except REDIS_ERRORS:
            return False

    def _loop(self, user: User, request: RunInput) -> AgentLoop:
        settings = self._settings
        return AgentLoop(
            request,
            user,
            model=self._model,
            model_name=settings.AGENT_MODEL,
            system_prompt=settings.AGENT_SYSTEM_PROMPT,
            max_rounds=settings.AGENT_MAX_ROUNDS,
            tools=self._tools,
            permitted=self._permitted,
        )

    async def _permitted(self, user: User, workspace: str) -> User | None:
        """The user as the account stands now, None if it may not run the agent any more.

        While PostgreSQL is away it is as it was.
        """
        try:
            async with self._database.transaction() as session:
                row = await user_rows.by_id(session, user.id)
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                raise
            return user
        if row is None or not row.active:
            return None
        current = User.model_validate(row)
        try:
            rbac_service.check(current, Permission.RUN_AGENT, workspace)
        except NotPermittedError:
            return None
        return current
