"""Errors of calls to the gateway and to the services behind it.

Messages are for clients, and reveal no internals.
"""

from collections.abc import Sequence

from src.utils.errors import DomainError, FieldFault

_OUTCOME_UNKNOWN = (
    "It may have been carried out all the same. A job that it has started belongs to nobody: an "
    "administrator finds it at GET /api/jobs. Ask before you send it again."
)


class UpstreamError(DomainError):
    """The base class of gateway errors.

    Errors that occur only in agent runs declare no document; src/services/runs/errors.py has their
    messages.

    Attributes:
        exposes_message: Whether the message is the detail of the document.
        outcome_unknown: Whether the failed call may have taken effect. A call that writes must then
            not be repeated without a check.
        transient: Whether the same call may soon succeed. It is worth a retry if it failed
            immediately.
    """

    exposes_message = False
    outcome_unknown = False
    transient = False

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: int | None = None,
        outcome_unknown: bool | None = None,
        transient: bool | None = None,
        faults: Sequence[FieldFault] = (),
    ) -> None:
        detail = message if self.exposes_message else None
        super().__init__(message, detail=detail, retry_after=retry_after, faults=faults)
        if outcome_unknown is not None:
            self.outcome_unknown = outcome_unknown
        if transient is not None:
            self.transient = transient

    def explain(self) -> str:
        return f"{self.detail} {_OUTCOME_UNKNOWN}" if self.outcome_unknown else self.detail


class GatewayUnavailableError(UpstreamError):
    """The gateway cannot be reached or closed the connection, or the circuit breaker is open."""

    status = 503
    slug = "gateway-unavailable"
    title = "The gateway cannot be reached"
    detail = "No tools and no agent; streams and job lists go on. Try again in a few seconds."
    transient = True
    retry_after = 5


class GatewayBusyError(UpstreamError):
    """The rate limit of the gateway or of the model's provider, or the connection pool, is exhausted."""

    status = 503
    slug = "gateway-busy"
    title = "The gateway takes no more calls for the moment"
    detail = "Try again after the time in Retry-After."
    retry_after = 10


class GatewayRefusedError(UpstreamError):
    """The gateway rejects this backend, because of settings that only an operator can correct."""

    status = 502
    slug = "gateway-refused"
    title = "The gateway does not accept this backend"
    exposes_message = True


class UpstreamTimeoutError(UpstreamError):
    """The gateway, or a service that it called, did not answer in time."""

    status = 504
    slug = "upstream-timeout"
    title = "No answer in time"
    detail = "The tool took too long. Ask for less, or try again later."
    transient = True
    outcome_unknown = True
    retry_after = 10


class InvalidResponseError(UpstreamError):
    """The response cannot be interpreted."""

    status = 502
    slug = "answer-not-understood"
    title = "The answer from upstream cannot be understood"
    detail = "The operator finds it in the log under the request id."
    outcome_unknown = True


class ToolServerUnavailableError(UpstreamError):
    """The gateway works, but the tool server does not."""

    status = 502
    slug = "tools-unavailable"
    title = "The tools cannot be reached"
    detail = "The gateway works, the server with the tools does not. Try again in a few seconds."
    transient = True
    retry_after = 5


class UnknownToolError(UpstreamError):
    """The tool server has no tool with this name."""

    status = 404
    slug = "tool-not-found"
    title = "No such tool"
    detail = "GET /api/tools lists those that you may use."


class ToolRejectedError(UpstreamError):
    """The tool rejects the call: its message says why, `faults` name the arguments."""

    status = 422
    slug = "tool-rejected"
    title = "The tool does not take this"
    detail = "Correct it and send it again."
    exposes_message = True


class ToolFailedError(UpstreamError):
    """The tool itself failed."""

    status = 502
    slug = "tool-failed"
    title = "The tool has failed"
    detail = "The log has its error under the request id; try again, or tell the operator."
    outcome_unknown = True


class ModelRejectedError(UpstreamError):
    """The model rejects the conversation."""


class ContextTooLongError(ModelRejectedError):
    """The conversation exceeds the context window of the model."""


class ModelFailedError(UpstreamError):
    """The model or its provider failed."""

    transient = True
