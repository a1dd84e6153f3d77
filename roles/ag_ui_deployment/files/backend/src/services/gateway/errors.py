"""What can go wrong with a call to the gateway or to what stands behind it.

`outcome_unknown` tells whether the call may have had its effect although it failed: then a call that
writes must not be repeated blindly. Messages are for callers: they hold nothing of the inside.
"""

from collections.abc import Sequence
from typing import NamedTuple


class ArgumentError(NamedTuple):
    """What is wrong with one argument."""

    name: str
    message: str


class UpstreamError(Exception):
    """`retry_after` is in seconds, where somebody said or knows it.

    `transient` tells whether the same call may work in a moment: where it failed at once, it is
    worth another attempt.
    """

    outcome_unknown = False
    transient = False
    retry_after: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: int | None = None,
        outcome_unknown: bool | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(message)
        if retry_after is not None:
            self.retry_after = retry_after
        if outcome_unknown is not None:
            self.outcome_unknown = outcome_unknown
        if transient is not None:
            self.transient = transient


class GatewayUnavailableError(UpstreamError):
    """The gateway cannot be reached, or broke off, or is not asked now."""

    transient = True
    retry_after = 5


class GatewayBusyError(UpstreamError):
    """The gateway or the model's provider limits how often it is asked."""

    retry_after = 10


class GatewayRefusedError(UpstreamError):
    """The gateway does not accept us: a matter of settings, which only an operator can mend."""


class UpstreamTimeoutError(UpstreamError):
    """No answer in time, of the gateway or of what it asked."""

    transient = True
    outcome_unknown = True
    retry_after = 10


class StrangeAnswerError(UpstreamError):
    """An answer that cannot be understood."""

    outcome_unknown = True


class ToolServerUnavailableError(UpstreamError):
    """The gateway works, the server with the tools does not."""

    transient = True
    retry_after = 5


class UnknownToolError(UpstreamError):
    """The server with the tools has none of this name."""


class ToolRejectedError(UpstreamError):
    """The tool refuses what it was asked: its message says why, `errors` name the arguments."""

    def __init__(self, message: str, errors: Sequence[ArgumentError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class ToolFailedError(UpstreamError):
    """The tool itself failed."""

    outcome_unknown = True


class ModelRejectedError(UpstreamError):
    """The model does not take this conversation."""


class ContextTooLongError(ModelRejectedError):
    """The conversation does not fit into what the model can hold."""


class ModelFailedError(UpstreamError):
    """The model or its provider failed."""

    transient = True
