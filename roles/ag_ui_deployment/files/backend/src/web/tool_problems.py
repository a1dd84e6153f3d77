"""What can go wrong with a tool call, as problem documents."""

from types import MappingProxyType

from fastapi import FastAPI, Request
from starlette.responses import Response

from src.services.gateway.errors import (
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnavailableError,
    StrangeAnswerError,
    ToolFailedError,
    ToolRejectedError,
    ToolServerUnavailableError,
    UnknownToolError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.services.tools.catalogue import ArgumentsRefusedError
from src.services.tools.submissions import (
    KeyReusedError,
    OutcomeUnknownError,
    StillRunningError,
    TooManyJobsError,
)
from src.services.tools.tool_service import TooManyCallsError, WorkspaceNotYoursError
from src.web.problems import RETRY_SOON, FieldError, InvalidRequest, NotFound, Problem, respond

_RETRY_LATER = MappingProxyType({"Retry-After": "5"})
_OUTCOME_UNKNOWN = (
    "It may have been carried out all the same. A job that it has started belongs to nobody: an "
    "administrator finds it at GET /api/jobs. Ask before you send it again."
)


class WorkspaceNotYours(NotFound):
    slug = "no-workspace-of-yours"
    title = "No such workspace"
    detail = "There is no workspace of this name among yours; GET /auth/me lists them."


class ToolNotFound(NotFound):
    slug = "tool-not-found"
    title = "No such tool"
    detail = "GET /api/tools lists those that you may use."


class TooManyCalls(Problem):
    status = 429
    slug = "too-many-calls"
    title = "You have too many calls under way"
    detail = "Wait until one of them has been answered."
    headers = RETRY_SOON


class TooManyJobs(Problem):
    status = 429
    slug = "too-many-jobs"
    title = "You have too many jobs running"
    detail = (
        "Wait until one of them has ended; GET /api/jobs?status=running lists them, and "
        "?status=queued those that wait."
    )
    headers = _RETRY_LATER


class KeyReused(Problem):
    status = 422
    slug = "idempotency-key-reused"
    title = "This Idempotency-Key was used for something else"
    detail = "Take a new key for a new request; send the same request with the same key."


class StillRunning(Problem):
    status = 409
    slug = "still-running"
    title = "The first request with this Idempotency-Key has not been answered yet"
    detail = "Send it again in a few seconds: you then get the first answer."
    headers = _RETRY_LATER


class OutcomeUnknown(Problem):
    status = 409
    slug = "outcome-unknown"
    title = "Nobody knows what became of the first request with this Idempotency-Key"
    detail = (
        "It may have been carried out, so it is not sent again. A job that it has started belongs "
        "to nobody: an administrator finds it at GET /api/jobs. To send it all the same take a new "
        "key."
    )


class ToolRejected(Problem):
    status = 422
    slug = "tool-rejected"
    title = "The tool does not take this"
    detail = "Correct it and send it again."


class ToolFailed(Problem):
    status = 502
    slug = "tool-failed"
    title = "The tool has failed"
    detail = "The log has its error under the request id; try again, or tell the operator."


class ToolAnswerNotUnderstood(Problem):
    status = 502
    slug = "answer-not-understood"
    title = "The answer from upstream cannot be understood"
    detail = "The operator finds it in the log under the request id."


class GatewayRefused(Problem):
    status = 502
    slug = "gateway-refused"
    title = "The gateway does not accept this backend"


class ToolsUnavailable(Problem):
    status = 502
    slug = "tools-unavailable"
    title = "The tools cannot be reached"
    detail = "The gateway works, the server with the tools does not. Try again in a few seconds."
    headers = _RETRY_LATER


class GatewayUnavailable(Problem):
    status = 503
    slug = "gateway-unavailable"
    title = "The gateway cannot be reached"
    detail = "No tools and no agent; streams and job lists go on. Try again in a few seconds."
    headers = _RETRY_LATER


class GatewayBusy(Problem):
    status = 503
    slug = "gateway-busy"
    title = "The gateway takes no more calls for the moment"
    detail = "Try again after the time in Retry-After."
    headers = _RETRY_LATER


class UpstreamTimeout(Problem):
    status = 504
    slug = "upstream-timeout"
    title = "No answer in time"
    detail = "The tool took too long. Ask for less, or try again later."
    headers = _RETRY_LATER


CALL_PROBLEMS = (
    WorkspaceNotYours,
    ToolNotFound,
    ToolRejected,
    ToolFailed,
    TooManyCalls,
    GatewayUnavailable,
    UpstreamTimeout,
)
SUBMISSION_PROBLEMS = (*CALL_PROBLEMS, StillRunning, TooManyJobs)

_KINDS: dict[type[Exception], type[Problem]] = {
    WorkspaceNotYoursError: WorkspaceNotYours,
    TooManyCallsError: TooManyCalls,
    TooManyJobsError: TooManyJobs,
    KeyReusedError: KeyReused,
    StillRunningError: StillRunning,
    OutcomeUnknownError: OutcomeUnknown,
    UnknownToolError: ToolNotFound,
    ToolRejectedError: ToolRejected,
    ToolFailedError: ToolFailed,
    StrangeAnswerError: ToolAnswerNotUnderstood,
    GatewayRefusedError: GatewayRefused,
    ToolServerUnavailableError: ToolsUnavailable,
    GatewayUnavailableError: GatewayUnavailable,
    GatewayBusyError: GatewayBusy,
    UpstreamTimeoutError: UpstreamTimeout,
}
# Whose message says more than the problem does.
_SPEAK_FOR_THEMSELVES = (GatewayRefusedError, ToolRejectedError)


def problem_of(error: Exception) -> Problem:
    """The problem that a tool call's error is to a client."""
    problem = _KINDS[type(error)]()
    if not isinstance(error, UpstreamError):
        return problem
    if isinstance(error, _SPEAK_FOR_THEMSELVES) and str(error):
        problem.detail = str(error)
    if error.outcome_unknown:
        problem.detail = f"{problem.detail} {_OUTCOME_UNKNOWN}"
    if error.retry_after is not None:
        problem.headers = {"Retry-After": str(error.retry_after)}
    if isinstance(error, ToolRejectedError) and error.errors:
        problem.errors = [FieldError(field=name, message=text) for name, text in error.errors]
    return problem


def refused_arguments(error: ArgumentsRefusedError, prefix: str) -> InvalidRequest:
    """`prefix` is where the arguments stand in the request."""
    return InvalidRequest(
        errors=[FieldError(field=f"{prefix}.{name}", message=text) for name, text in error.errors]
    )


def install(app: FastAPI) -> None:
    for kind in _KINDS:
        app.add_exception_handler(kind, _on_error)


async def _on_error(_request: Request, error: Exception) -> Response:
    return respond(problem_of(error))
