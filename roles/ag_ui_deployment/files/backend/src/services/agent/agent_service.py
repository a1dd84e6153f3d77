"""Begins, follows and cancels agent runs, and deletes their conversations."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from ag_ui.core import AgentCapabilities

from src.config import Settings
from src.models.agent_input import MESSAGES_MAX, RunInput
from src.models.conversation import RunStatus
from src.models.permissions import Permission
from src.models.user import User
from src.models.workspace import DEFAULT_WORKSPACE
from src.repositories import users as user_rows
from src.services import rbac_service
from src.services.agent.capabilities import capabilities_of
from src.services.agent.conversations import ConversationService, History, ThreadKey
from src.services.agent.errors import (
    RunExistsError,
    RunLogUnavailableError,
    RunNotFoundError,
    ThreadBusyError,
    ThreadNotFoundError,
    TooManyRunsError,
)
from src.services.agent.loop import AgentLoop
from src.services.agent.storage_limits import check_input
from src.services.agent.token_budget import TokenBudget
from src.services.agent.toolbox import Toolbox
from src.services.agui import events as agui
from src.services.agui.events import now
from src.services.agui.sse import encode
from src.services.events.errors import DrainingError
from src.services.litellm_client import LiteLLMClient
from src.services.runs.ended_logs import EndedLogs, Snapshot
from src.services.runs.log import LogRecord, RunLog
from src.services.runs.manager import RunManager
from src.services.runs.registry import LEASE_SECONDS, STORED_LOG_TTL_SECONDS, RunKey, RunRegistry
from src.services.runs.store import RunStore
from src.utils.database import DATABASE_ERRORS, Database, is_outage
from src.utils.redis import REDIS_ERRORS

# How long a new run waits for runs that it cancels, and the interval of checks, in seconds. Less
# than a lease, since the lease of the new run is not renewed before it starts.
_CANCEL_OTHERS_SECONDS = LEASE_SECONDS / 2
_POLL_SECONDS = 0.05
# Maximum bytes of an assistant message besides the output of the model.
_MESSAGE_OVERHEAD_BYTES = 1024
# How long Redis keeps the log of an ended run, with a margin.
_LOG_TTL = timedelta(seconds=STORED_LOG_TTL_SECONDS + 60)


class JoinedThread(NamedTuple):
    """A run to follow, its log if it has ended, and the messages to send before its events."""

    key: RunKey
    log: RunLog | None
    snapshot: list[Snapshot]


class AgentService:
    """Runs of the agent, for users."""

    def __init__(  # noqa: PLR0913 - injected dependencies
        self,
        settings: Settings,
        database: Database,
        model: LiteLLMClient,
        tools: Toolbox,
        *,
        budget: TokenBudget,
        registry: RunRegistry,
        conversations: ConversationService,
        store: RunStore,
        runs: RunManager,
    ) -> None:
        self._settings = settings
        self._database = database
        self._model = model
        self._tools = tools
        self._budget = budget
        self._registry = registry
        self._runs = runs
        self.conversations = conversations
        self._ended_logs = EndedLogs(store.stored)

    @property
    def tool_names(self) -> Collection[str]:
        """The names of the agent's own tools; a client must use other names for its tools."""
        return self._tools.names

    async def begin(self, user: User, request: RunInput) -> tuple[RunKey, RunLog]:
        """Starts a run, which continues without clients.

        Args:
            user: Who runs the agent.
            request: The conversation, tools and state from the client.

        Returns:
            The run and its log. The log remains usable if the run or its conversation is deleted.

        Raises:
            WorkspaceNotYoursError: The user does not belong to the workspace.
            NotPermittedError: The user may not run the agent there.
            InputTooLargeError: A message or the state is too large.
            DrainingError: This process is shutting down.
            TokensSpentError: The user has used the tokens of the day.
            TooManyRunsError: The user has too many active runs.
            RunLogUnavailableError: Redis is unavailable.
            RunExistsError: The user has a run with this id.
            ThreadWorkspaceMismatchError: The conversation belongs to another workspace.
            ThreadFullError: The conversation is too large.
            UserFullError: The conversations of the user are too large.
            ThreadBusyError: Another run of the conversation is running.
        """
        await self._tools.check_workspace(user, request.workspace)
        rbac_service.check(user, Permission.RUN_AGENT, request.workspace)
        check_input(self._settings, request)
        if self._runs.draining:
            raise DrainingError
        await self._budget.check(user.id)
        key = RunKey(user.id, request.run_id)
        thread = ThreadKey(user.id, request.thread_id)
        others = await self.conversations.active_runs(thread) if request.cancels_running else []
        await self._acquire(key, others)
        try:
            await self._store(user, request)
        except BaseException:
            await self._release(key)
            raise
        log = self._runs.begin(key, self._agent_loop(user, request))
        try:
            # Meanwhile the model is being called.
            await self._runs.recheck_permission(key)
            await self.conversations.audit_begin(user, request)
        except BaseException:
            self._runs.cancel(key)
            raise
        return key, log

    async def join(self, user: User, request: RunInput) -> JoinedThread:
        """Joins a conversation: returns its messages and its active run.

        Without an active run or a conversation, the stream has a run that ends at once and is not
        stored.

        Args:
            user: Who joins.
            request: The ids of the conversation and of the run to return if none is running.

        Raises:
            TooManyStreamsError: The limit of this process is reached.
            TooManyStreamsOfUserError: The limit of the user is reached.
        """
        async with self._ended_logs.reserve(user.id) as reserve:
            try:
                history = await self.conversations.history(
                    user, ThreadKey(user.id, request.thread_id), MESSAGES_MAX
                )
            except ThreadNotFoundError:
                history = History([], None)
            snapshot = [reserve(encode([agui.messages_snapshot(history.messages, now())]))]
        if history.active:
            log = await self.find(user, history.active)
            return JoinedThread(history.active, log, snapshot)
        ids = request.thread_id, request.run_id
        events = agui.run_started(*ids, now()), agui.run_finished(*ids, {}, now())
        log = RunLog(LogRecord.of(event) for event in events)
        return JoinedThread(
            RunKey(user.id, request.run_id), log, snapshot if history.messages else []
        )

    async def capabilities(self, user: User) -> AgentCapabilities:
        offered = await self._tools.offered(user, DEFAULT_WORKSPACE)
        return capabilities_of(offered, self._settings.AGENT_MAX_ROUNDS)

    async def find(self, user: User, key: RunKey) -> RunLog | None:
        """Returns the log of a run that has ended; None if the run is running.

        During an outage of PostgreSQL users can follow their own active runs.

        Raises:
            RunNotFoundError: There is no such run, or the user may not see it.
            TooManyStreamsError: The limit of this process is reached.
            TooManyStreamsOfUserError: The limit of the user is reached.
        """
        try:
            run = await self.conversations.run(user, key)
        except DATABASE_ERRORS as error:
            if is_outage(error) and key.owner == user.id and await self._has_log(key):
                return None
            raise
        if run.status is RunStatus.RUNNING or self._runs.log(key):
            return None
        log = await self._ended_logs.get(key, user.id)
        if log is None:
            raise RunNotFoundError
        return log

    async def cancel(self, user: User, key: RunKey) -> None:
        """Cancels a run on whichever instance it runs.

        During an outage of PostgreSQL users can cancel their own runs of this process.

        Raises:
            RunNotFoundError: There is no such run, or the user may not see it.
            NotPermittedError: The user may not cancel it.
            RunLogUnavailableError: Redis is unavailable.
        """
        try:
            run = await self.conversations.run(user, key)
        except DATABASE_ERRORS as error:
            if is_outage(error) and key.owner == user.id and self._runs.cancel(key):
                return
            raise
        rbac_service.check(user, Permission.RUN_AGENT, run.workspace)
        if run.status is RunStatus.RUNNING:
            await self._cancel(key)
            await self.conversations.audit_cancellation(user, key, run)

    async def delete_thread(self, user: User, key: ThreadKey) -> None:
        """Deletes a conversation and its runs; running ones are cancelled.

        Raises:
            ThreadNotFoundError: There is no such conversation, or the user may not see it.
            NotPermittedError: The user may not delete it.
            RunLogUnavailableError: Redis is unavailable.
        """
        for run in await self.conversations.changeable_active_runs(user, key):
            await self._cancel(run)
        deleted = await self.conversations.delete(user, key, _LOG_TTL)
        # A run may have started in the meantime.
        for run_id in deleted.running_ids:
            await self._cancel(RunKey(key.owner, run_id))
        for run_id in deleted.recently_ended:
            await self._release(RunKey(key.owner, run_id))

    async def _store(self, user: User, request: RunInput) -> None:
        """Stores a new run. Cancels active runs only if nothing else prevents the new one.

        Raises what conversations.begin() raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CANCEL_OTHERS_SECONDS
        while True:
            try:
                await self.conversations.begin(user, request)
            except ThreadBusyError:
                if not request.cancels_running or loop.time() >= deadline:
                    raise
            else:
                return
            await self._cancel_others(user, ThreadKey(user.id, request.thread_id), deadline)

    async def _cancel_others(self, user: User, thread: ThreadKey, deadline: float) -> None:
        """Cancels the runs of a conversation, including new ones, until none is running.

        Returns at `deadline`, a time of the loop's clock, even if some are still running.
        """
        loop = asyncio.get_running_loop()
        cancelled: set[RunKey] = set()
        while loop.time() < deadline:
            others = await self.conversations.active_runs(thread)
            if not others:
                return
            for key in others:
                if key not in cancelled:
                    await self.cancel(user, key)
                    cancelled.add(key)
            await asyncio.sleep(_POLL_SECONDS)

    async def _cancel(self, key: RunKey) -> None:
        if self._runs.cancel(key):
            return
        try:
            await self._registry.request_cancellation(key)
        except REDIS_ERRORS as error:
            raise RunLogUnavailableError from error

    async def _acquire(self, key: RunKey, excluded: Sequence[RunKey]) -> None:
        maximum = self._settings.RUNS_PER_USER
        try:
            result = await self._registry.begin(key, maximum, excluded)
        except REDIS_ERRORS as error:
            raise RunLogUnavailableError from error
        if result == "exists":
            raise RunExistsError
        if result == "full":
            raise TooManyRunsError

    async def _release(self, key: RunKey) -> None:
        # Otherwise the keys expire.
        with suppress(*REDIS_ERRORS):
            await self._registry.delete(key)

    async def _has_log(self, key: RunKey) -> bool:
        if self._runs.log(key):
            return True
        try:
            return await self._registry.has_log(key)
        except REDIS_ERRORS:
            return False

    def _agent_loop(self, user: User, request: RunInput) -> AgentLoop:
        settings = self._settings
        return AgentLoop(
            request,
            user,
            model=self._model,
            model_name=settings.AGENT_MODEL,
            system_prompt=settings.AGENT_SYSTEM_PROMPT,
            max_rounds=settings.AGENT_MAX_ROUNDS,
            max_calls=settings.AGENT_MAX_TOOL_CALLS,
            max_answer_bytes=settings.AGENT_MESSAGE_MAX_BYTES - _MESSAGE_OVERHEAD_BYTES,
            tools=self._tools,
            budget=self._budget,
            permitted_user=self._permitted_user,
        )

    async def _permitted_user(self, user: User, workspace: str) -> User | None:
        """Returns the current state of the user; None if the permission to run the agent is lost.

        During an outage of PostgreSQL the last known state applies.
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
        return current if rbac_service.may(current, Permission.RUN_AGENT, workspace) else None
