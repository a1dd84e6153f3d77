"""Errors of agent runs and conversations."""

from src.services.auth.errors import LimitReachedError
from src.utils.errors import DomainError, FieldFaultError, NotFoundError


class RunNotFoundError(NotFoundError):
    """The run does not exist, or is not visible to the user."""

    slug = "run-not-found"
    title = "No such run"
    detail = "There is no run with this id among yours; GET /agent/threads/{id} lists them."


class ThreadNotFoundError(NotFoundError):
    """The conversation does not exist, or is not visible to the user."""

    slug = "thread-not-found"
    title = "No such conversation"
    detail = "There is no conversation with this id among yours; GET /agent/threads lists them."


class RunExistsError(DomainError):
    """The user already has a run with this id."""

    status = 409
    slug = "run-exists"
    title = "There is a run with this id"
    detail = "Follow it: GET /agent/runs/{id}/events. Give a new run an id of its own."


class ThreadWorkspaceMismatchError(DomainError):
    """The conversation belongs to another workspace; the message names it."""

    status = 409
    slug = "thread-in-another-workspace"
    title = "This conversation belongs to another workspace"
    detail = "Name its workspace in forwardedProps.workspace, or begin another conversation."


class ThreadBusyError(DomainError):
    """The conversation has an active run; the message names it."""

    status = 409
    slug = "thread-busy"
    title = "A run of this conversation is on"
    detail = (
        "Follow it by POST /agent/connect, cancel it, or send ifRunning: cancel in forwardedProps."
    )


class InputTooLargeError(FieldFaultError):
    """A message or the state exceeds its maximum size."""


class ThreadFullError(DomainError):
    """The conversation would exceed its maximum size."""

    status = 413
    slug = "conversation-too-large"
    title = "This conversation holds as much as it may"
    detail = "Begin another one, with another threadId."


class UserFullError(DomainError):
    """The conversations of the user would exceed their maximum total size."""

    status = 429
    slug = "too-much-kept"
    title = "Your conversations hold as much as they may"
    detail = "Delete some that you need no more: GET /agent/threads, DELETE /agent/threads/{id}."


class TooManyRunsError(DomainError):
    """The user has the maximum number of active runs."""

    status = 429
    slug = "too-many-runs"
    title = "You have too many runs on"
    detail = "Wait for one to end, or cancel one: POST /agent/runs/{id}/cancel."
    retry_after = 5


class TokensSpentError(LimitReachedError):
    """The user has reached the daily token limit."""

    slug = "tokens-spent"
    title = "You have used your tokens of this day"
    detail = "There are more at midnight by UTC: try again after Retry-After, in seconds."


class RunLogUnavailableError(DomainError):
    """Redis does not answer, so a run could be neither resumed nor cancelled."""

    status = 503
    slug = "run-log-unavailable"
    title = "Redis does not answer"
    detail = "A run could be neither resumed nor cancelled. Try again in a few seconds."
    retry_after = 5
