"""Runs the agent loop: asks the model and runs the tools that it calls, until it answers."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import orjson
import structlog

from src.models.agent_input import RunInput
from src.models.user import User
from src.services.agent.prompt import (
    CALLS_USED_UP,
    WITHOUT_TOOLS,
    ChatMessage,
    ChatTool,
    chat_messages,
    chat_tool,
    instructions,
)
from src.services.agent.token_budget import TokenBudget
from src.services.agent.toolbox import Toolbox
from src.services.agent.turn import ToolCall, Turn
from src.services.agui import events as agui
from src.services.agui.events import Event, now
from src.services.gateway.chat_stream import Usage
from src.services.gateway.errors import UpstreamError
from src.services.litellm_client import LiteLLMClient
from src.services.runs.errors import (
    PERMISSION_LOST,
    TOKENS_SPENT,
    TOO_LARGE,
    TOO_MANY_CALLS,
    TOO_MANY_ROUNDS,
    RunFailedError,
    RunFailure,
    upstream_failure,
)
from src.services.runs.log import LogRecord, RunLog
from src.services.runs.messages import RunMessages

logger = structlog.get_logger(__name__)

# The log of a run is kept in memory, in Redis and in PostgreSQL.
RUN_MAX_BYTES = 16 * 1024 * 1024
# Approximate bytes of text per token.
_TOKEN_BYTES = 4
# Maximum bytes of a call in a message besides its name and arguments.
_CALL_BYTES = 256


class AgentLoop:
    """One run. Appends its events to `log`, except the last one, which run() returns."""

    def __init__(  # noqa: PLR0913 - injected dependencies
        self,
        request: RunInput,
        user: User,
        *,
        model: LiteLLMClient,
        model_name: str,
        system_prompt: str,
        max_rounds: int,
        max_calls: int,
        max_answer_bytes: int,
        tools: Toolbox,
        budget: TokenBudget,
        permitted_user: Callable[[User, str], Awaitable[User | None]],
    ) -> None:
        self.log = RunLog()
        self._request = request
        self._user = user
        self._model = model
        self._model_name = model_name
        self._system_prompt = instructions(system_prompt, request)
        self._max_rounds = max_rounds
        self._tools = tools
        self._budget = budget
        self._permitted_user = permitted_user
        self._conversation = request.conversation
        self._client_tools = {tool.name for tool in request.tools or []}
        self._new_messages = RunMessages()
        self._max_calls = max_calls
        # The number of calls of the agent's own tools.
        self._call_count = 0
        self._max_answer_bytes = max_answer_bytes
        # Bytes of JSON of the current answer: text and tool calls.
        self._answer_bytes = 0
        self._usage: dict[str, int] = {}
        # The current answer of the model, and the step that it belongs to.
        self._turn: Turn | None = None
        self._step: str | None = None

    def begin(self) -> None:
        request = self._request
        started = agui.run_started(request.thread_id, request.run_id, now())
        if request.parent_run_id is not None:
            started["parentRunId"] = request.parent_run_id
        self._emit([started])

    async def run(self) -> Event:
        """Runs the loop and returns the terminal event.

        Raises:
            RunFailedError: The run has failed.
        """
        if self._request.state is not None:
            self._emit([agui.state_snapshot(self._request.state, now())])
        if not self._request.messages:
            return self.finished()
        chat_tools = await self._chat_tools()
        for number in range(1, self._max_rounds + 1):
            self._begin_step(f"round {number}")
            turn = await self._ask_model(chat_tools)
            pending = [call.id for call in turn.calls if call.name in self._client_tools]
            own = [call for call in turn.calls if call.name not in self._client_tools]
            if own and number == self._max_rounds:
                break
            await self._run_tools(own)
            self._end_step()
            if pending or not turn.calls:
                return self.finished(turn.finish_reason, number, pending)
        raise RunFailedError(TOO_MANY_ROUNDS)

    async def is_permitted(self) -> bool:
        """Whether the user still has the permission; updates the user for the next calls."""
        user = await self._permitted_user(self._user, self._request.workspace)
        if user is not None:
            self._user = user
        return user is not None

    def finished(
        self, finish_reason: str | None = None, rounds: int = 0, pending: Sequence[str] = ()
    ) -> Event:
        """Builds the terminal event of a successful run.

        Args:
            finish_reason: Why the model stopped, as it reported.
            rounds: The number of answers of the model.
            pending: The ids of the calls that the client has to answer.

        Returns:
            `RUN_FINISHED`, with the token usage if it is known.
        """
        result = {"rounds": rounds, "finishReason": finish_reason}
        request = self._request
        return self._with_usage(
            agui.agent_run_finished(request.thread_id, request.run_id, result, pending, now())
        )

    def cancelled(self) -> Event:
        """Closes open events and returns the terminal event of a cancelled run."""
        self._close_turn()
        self._end_step()
        return self._with_usage(
            agui.run_cancelled(self._request.thread_id, self._request.run_id, now())
        )

    def failed(self, failure: RunFailure) -> Event:
        """Closes open events and returns the terminal event of a failed run."""
        self._close_turn()
        self._end_step()
        return self._with_usage(failure.event())

    def _close_turn(self) -> None:
        if self._turn is not None:
            self._append(self._turn.end())
            self._turn = None

    def _begin_step(self, name: str) -> None:
        self._step = name
        self._emit([agui.step_started(name, now())])

    def _end_step(self) -> None:
        if self._step is not None:
            self._append([agui.step_finished(self._step, now())])
            self._step = None

    async def _chat_tools(self) -> list[ChatTool]:
        """Returns the tools for the model; tells it if those of Shield are unavailable."""
        try:
            offered = await self._tools.offered(self._user, self._request.workspace)
        except UpstreamError as error:
            logger.warning("agent_without_tools", error=repr(error))
            self._system_prompt = "\n\n".join(filter(None, (self._system_prompt, WITHOUT_TOOLS)))
            offered = []
        own = [
            chat_tool(tool.name, tool.description, tool.parameters)
            for tool in self._request.tools or []
        ]
        return [*offered, *own]

    async def _ask_model(self, chat_tools: Sequence[ChatTool]) -> Turn:
        """Requests one answer of the model and sends its events."""
        messages = chat_messages(
            self._system_prompt, [*self._conversation, *self._new_messages.all()]
        )
        body: dict[str, Any] = {"model": self._model_name, "messages": messages}
        if chat_tools:
            body["tools"] = chat_tools
        self._turn = turn = Turn()
        self._answer_bytes = 0
        # Some providers report the usage once at the end, others cumulatively with each chunk.
        usage: Usage | None = None
        has_started = is_rejected = False
        try:
            async with aclosing(self._model.chat(body)) as chunks:
                async for chunk in chunks:
                    has_started = True
                    usage = chunk.usage or usage
                    self._emit(turn.feed(chunk))
                    if turn.has_too_many_calls:
                        raise RunFailedError(TOO_MANY_CALLS)
        except UpstreamError as error:
            is_rejected = not (has_started or error.outcome_unknown)
            raise RunFailedError(upstream_failure(error)) from error
        finally:
            self._add_usage(usage)
            # The model may have consumed tokens even if its answer was aborted before its first
            # chunk.
            if not is_rejected:
                self._budget.record(
                    self._user.id, self._model_name, usage or self._estimate(messages)
                )
        self._close_turn()
        return turn

    async def _run_tools(self, calls: Sequence[ToolCall]) -> None:
        """Runs the tools with the current permissions of the user."""
        if not calls:
            return
        if not await self.is_permitted():
            raise RunFailedError(PERMISSION_LOST)
        if await self._budget.is_exhausted(self._user.id):
            raise RunFailedError(TOKENS_SPENT)
        for call in calls:
            self._call_count += 1
            content = CALLS_USED_UP
            if self._call_count <= self._max_calls:
                content = await self._tools.call(self._user, self._request.workspace, call)
            self._emit([agui.tool_call_result(f"{call.id}:result", call.id, content, now())])

    def _emit(self, events: Sequence[Event]) -> None:
        accepted = [event for event in events if self._fits(event)]
        self._append(accepted)
        if len(accepted) < len(events) or self.log.size > RUN_MAX_BYTES:
            raise RunFailedError(TOO_LARGE)

    def _fits(self, event: Event) -> bool:
        """Whether the message stays small enough for the client to send it again.

        Only texts are omitted: events that open something are always sent, since it will be closed.
        """
        self._answer_bytes += _answer_bytes(event)
        return "delta" not in event or self._answer_bytes <= self._max_answer_bytes

    def _append(self, events: Sequence[Event]) -> None:
        for event in events:
            self._new_messages.apply(event)
        if events:
            self.log.append(LogRecord.of(event) for event in events)

    def _add_usage(self, usage: Usage | None) -> None:
        if usage is None:
            return
        counts = {
            "inputTokens": usage.prompt_tokens,
            "outputTokens": usage.completion_tokens,
            "totalTokens": usage.prompt_tokens + usage.completion_tokens,
        }
        for name, count in counts.items():
            self._usage[name] = self._usage.get(name, 0) + count

    def _estimate(self, messages: Sequence[ChatMessage]) -> Usage:
        """Estimates the usage of an answer that reports none, such as an aborted one."""
        prompt_bytes = len(orjson.dumps(messages))
        return Usage(prompt_bytes // _TOKEN_BYTES, self._answer_bytes // _TOKEN_BYTES)

    def _with_usage(self, event: Event) -> Event:
        if self._usage:
            event["usage"] = [{"model": self._model_name, **self._usage}]
        return event


def _answer_bytes(event: Event) -> int:
    """Returns the bytes that an event adds to the JSON of the assistant message."""
    if event["type"] == "TOOL_CALL_START":
        return _CALL_BYTES + len(orjson.dumps(event["toolCallName"]))
    # Without the quotes, which occur once per text.
    return len(orjson.dumps(event["delta"])) - 2 if "delta" in event else 0
