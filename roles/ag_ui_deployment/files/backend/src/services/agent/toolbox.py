"""Gives the model access to the tools of Shield that the user may use."""

from collections.abc import Collection, Sequence
from typing import Any

import orjson
import structlog

from src.models.user import User
from src.services.agent.prompt import ChatTool, chat_tool
from src.services.agent.turn import ToolCall
from src.services.auth.errors import LimitReachedError
from src.services.auth.rate_limits import RateLimits
from src.services.gateway.errors import (
    ToolRejectedError,
    UnknownToolError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.services.jobs.job_service import JobNotFoundError
from src.services.rbac_service import NotPermittedError
from src.services.tools.catalogue import CATALOGUE
from src.services.tools.errors import (
    ArgumentsRefusedError,
    OutcomeUnknownError,
    TooManyCallsError,
    TooManyJobsError,
    WorkspaceNotYoursError,
)
from src.services.tools.tool_service import ToolService
from src.services.uploads.errors import UploadStorageError
from src.utils.database import DATABASE_ERRORS, is_outage

logger = structlog.get_logger(__name__)

# A client sends each result again with every further request, and the model reads it each time.
RESULT_MAX_BYTES = 64 * 1024
# As a string inside JSON it may be twice as long.
_EXCERPT_BYTES = 31 * 1024
# The error messages for the model by exception. The model rephrases them for the user.
_MESSAGES: tuple[tuple[type[Exception], str], ...] = (
    (UnknownToolError, "There is no such tool."),
    (UpstreamTimeoutError, "The tool did not answer in time."),
    (UpstreamError, "The tool has failed, or cannot be reached at the moment."),
    (NotPermittedError, "The user may not use this tool."),
    (WorkspaceNotYoursError, "The user does not belong to this workspace any more."),
    (JobNotFoundError, "The user has no such job."),
    (TooManyCallsError, "The user has too many calls under way; try again in a moment."),
    (TooManyJobsError, "The user has too many jobs running; one has to end first."),
    (UploadStorageError, "The uploaded document cannot be read at the moment."),
    (OutcomeUnknownError, "Nobody knows what became of this call."),
)
_OUTCOME_UNKNOWN = " It may have done its work all the same."


class Toolbox:
    """The tools of Shield, called by the model for a user."""

    def __init__(self, tools: ToolService, limits: RateLimits) -> None:
        self._tools = tools
        self._limits = limits

    @property
    def names(self) -> Collection[str]:
        return CATALOGUE.keys()

    async def check_workspace(self, user: User, workspace: str) -> None:
        """Checks that the user belongs to the workspace.

        Raises:
            WorkspaceNotYoursError: The user does not.
        """
        await self._tools.resolve_workspace(user, workspace)

    async def offered(self, user: User, workspace: str) -> Sequence[ChatTool]:
        """Returns the available tools in the format of a chat completion request.

        Raises:
            UpstreamError: The tools cannot be listed.
        """
        try:
            available = await self._tools.available(user, workspace)
        except WorkspaceNotYoursError:
            return []
        return [chat_tool(tool.name, tool.description, tool.input_schema) for tool in available]

    async def call(self, user: User, workspace: str, call: ToolCall) -> str:
        """Calls a tool.

        Returns:
            The result or an error for the model, as JSON text.
        """
        arguments = _arguments(call.arguments)
        if arguments is None:
            return _error("The arguments are no JSON object.")
        try:
            # Calls by the model count against the limits of the user.
            await self._limits.check_tool_call(user.id)
            outcome = await self._tools.call(user, call.name, arguments, workspace)
        except (ArgumentsRefusedError, ToolRejectedError) as error:
            return _error(_describe_rejection(error))
        except LimitReachedError as error:
            return _error(
                f"The user has made too many requests; in {error.retry_after} seconds there may be"
                " more. Say so."
            )
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                raise
            logger.warning("agent_tool_unavailable", tool=call.name, error=str(error))
            return _error("The tool cannot be used at the moment.")
        except tuple(kind for kind, _ in _MESSAGES) as error:
            return _error(_message_for(error))
        return _truncated(orjson.dumps(outcome.result))


def _truncated(result: bytes) -> str:
    if len(result) <= RESULT_MAX_BYTES:
        return result.decode()
    truncated = {
        "truncated": "The result was too long to be passed on; this is only its beginning.",
        "bytes": len(result),
        "beginning": result[:_EXCERPT_BYTES].decode(errors="ignore"),
    }
    return orjson.dumps(truncated).decode()


def _arguments(text: str) -> dict[str, Any] | None:
    try:
        arguments = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return arguments if isinstance(arguments, dict) else None


def _describe_rejection(error: ArgumentsRefusedError | ToolRejectedError) -> str:
    """Describes rejected arguments, so that the model can try again."""
    faults = "; ".join(f"{name}: {text}" for name, text in error.faults)
    return faults or str(error)


def _message_for(error: Exception) -> str:
    message = next(message for kind, message in _MESSAGES if isinstance(error, kind))
    return (
        message + _OUTCOME_UNKNOWN
        if isinstance(error, UpstreamError) and error.outcome_unknown
        else message
    )


def _error(message: str) -> str:
    return orjson.dumps({"error": message}).decode()
