"""Defines how an agent run can fail, with messages for users that reveal no internals."""

from typing import NamedTuple

from src.services.agui import events as agui
from src.services.agui.events import Event, now
from src.services.gateway.errors import (
    ContextTooLongError,
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnavailableError,
    ModelRejectedError,
    UpstreamError,
    UpstreamTimeoutError,
)


class RunFailure(NamedTuple):
    """The contents of `RUN_ERROR`; `retryable` means that the same request may soon succeed."""

    code: str
    message: str
    retryable: bool = False

    def event(self) -> Event:
        """Builds `RUN_ERROR` with the current time."""
        error = agui.run_error(self.message, self.code, now())
        error["metadata"] = {"retryable": self.retryable}
        return error


class RunFailedError(Exception):
    def __init__(self, failure: RunFailure) -> None:
        super().__init__(failure.code)
        self.failure = failure


TOO_MANY_ROUNDS = RunFailure(
    "too_many_rounds",
    "The model went on calling tools and came to no answer. Ask for less at once.",
)
TOO_MANY_CALLS = RunFailure(
    "too_many_calls", "The model has called too many tools at once. Ask for less at once."
)
TOKENS_SPENT = RunFailure(
    "tokens_spent", "You have used your tokens of this day. There are more at midnight, by UTC."
)
TOO_LARGE = RunFailure("run_too_large", "The answer has become too large. Ask for less at once.")
PERMISSION_LOST = RunFailure(
    "permission_lost", "You may not run the agent here any more; an administrator can tell why."
)
SHUTDOWN = RunFailure(
    "shutdown", "The server that ran this was stopped. Send the message again.", retryable=True
)
LOST = RunFailure(
    "run_lost", "The server that ran this has failed. Send the message again.", retryable=True
)
INTERNAL = RunFailure(
    "internal_error", "Something went wrong here; it has been logged under the run's id."
)
_MODEL_FAILED = RunFailure(
    "model_failed", "The model's answer broke off. Send the message again.", retryable=True
)
_UPSTREAM_FAILURES: tuple[tuple[type[UpstreamError], RunFailure], ...] = (
    (
        GatewayUnavailableError,
        RunFailure(
            "gateway_unavailable",
            "The gateway to the model cannot be reached. Try again in a few seconds.",
            retryable=True,
        ),
    ),
    (
        GatewayBusyError,
        RunFailure(
            "rate_limited",
            "The model is asked too often at the moment. Try again later.",
            retryable=True,
        ),
    ),
    (
        UpstreamTimeoutError,
        RunFailure("model_timeout", "The model did not answer in time. Try again.", retryable=True),
    ),
    # Before ModelRejectedError, its base class.
    (
        ContextTooLongError,
        RunFailure(
            "context_too_long",
            "The conversation has become too long for the model. Begin a new one.",
        ),
    ),
    (
        ModelRejectedError,
        RunFailure("model_rejected", "The model does not take this conversation. Begin a new one."),
    ),
)


def upstream_failure(error: UpstreamError) -> RunFailure:
    """Returns the failure for an error of the gateway or of the model."""
    if isinstance(error, GatewayRefusedError):
        # The message of the error is for operators; users pass it on to them.
        return RunFailure("gateway_refused", f"The gateway to the model cannot be used. {error}")
    for kind, failure in _UPSTREAM_FAILURES:
        if isinstance(error, kind):
            return failure
    return _MODEL_FAILED
