"""What can go wrong with a call to the gateway or to what stands behind it.

`outcome_unknown` tells whether the call may have had its effect although it failed: then a call that
writes must not be repeated blindly. Messages are for callers: they hold nothing of the inside.
"""

from collections.abc import Sequence

from src.utils.errors import DomainError, FieldFault

_OUTCOME_UNKNOWN = (
    "It may have been carried out all the same. A job that it has started belongs to nobody: an "
    "administrator finds it at GET /api/jobs. Ask before you send it again."
)


class UpstreamError(DomainError):
    """Those that only runs of the agent meet declare no document: src/services/runs/errors.py.

    `tells_message`: the message is the detail of the document.
    `transient`: the same call may work in a moment; where it failed at once, it is worth another
    attempt.
    """

    tells_message = False
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
        detail = message if self.tells_message else None
        super().__init__(message, detail=detail, retry_after=retry_after, faults=faults)
        if outcome_unknown is not None:
            self.outcome_unknown = outcome_unknown
        if transient is not None:
            self.transient = transient

    def explain(self) -> str:
        return f"{self.detail} {_OUTCOME_UNKNOWN}" if self.outcome_unknown else self.detail


class GatewayUnavailableError(UpstreamError):
    """The gateway cannot be reached, or broke off, or is not asked now."""

    status = 503
    slug = "gateway-unavailable"
    title = "The gateway cannot be reached"
    detail = "No tools and no agent; streams and job lists go on. Try again in a few seconds."
    transient = True
    retry_after = 5


class GatewayBusyError(UpstreamError):
    """The gateway or the model's provider limits how often it is asked."""

    status = 503
    slug = "gateway-busy"
    title = "The gateway takes no more calls for the moment"
    detail = "Try again after the time in Retry-After."
    retry_after = 10


class GatewayRefusedError(UpstreamError):
    """The gateway does not accept us: a matter of settings, which only an operator can mend."""

    status = 502
    slug = "gateway-refused"
    title = "The gateway does not accept this backend"
    tells_message = True


class UpstreamTimeoutError(UpstreamError):
    """No answer in time, of the gateway or of what it asked."""

    status = 504
    slug = "upstream-timeout"
    title = "No answer in time"
    detail = "The tool took too long. Ask for less, or try again later."
    transient = True
    outcome_unknown = True
    retry_after = 10


class StrangeAnswerError(UpstreamError):
    """An answer that cannot be understood."""

    status = 502
    slug = "answer-not-understood"
    title = "The answer from upstream cannot be understood"
    detail = "The operator finds it in the log under the request id."
    outcome_unknown = True


class ToolServerUnavailableError(UpstreamError):
    """The gateway works, the server with the tools does not."""

    status = 502
    slug = "tools-unavailable"
    title = "The tools cannot be reached"
    detail = "The gateway works, the server with the tools does not. Try again in a few seconds."
    transient = True
    retry_after = 5


class UnknownToolError(UpstreamError):
    """The server with the tools has none of this name."""

    status = 404
    slug = "tool-not-found"
    title = "No such tool"
    detail = "GET /api/tools lists those that you may use."


class ToolRejectedError(UpstreamError):
    """The tool refuses what it was asked: its message says why, `faults` name the arguments."""

    status = 422
    slug = "tool-rejected"
    title = "The tool does not take this"
    detail = "Correct it and send it again."
    tells_message = True


class ToolFailedError(UpstreamError):
    """The tool itself failed."""

    status = 502
    slug = "tool-failed"
    title = "The tool has failed"
    detail = "The log has its error under the request id; try again, or tell the operator."
    outcome_unknown = True


class ModelRejectedError(UpstreamError):
    """The model does not take this conversation."""


class ContextTooLongError(ModelRejectedError):
    """The conversation does not fit into what the model can hold."""


class ModelFailedError(UpstreamError):
    """The model or its provider failed."""

    transient = True
