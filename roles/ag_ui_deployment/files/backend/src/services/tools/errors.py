"""Errors that reject a tool call before the gateway is called."""

from collections.abc import Collection

from src.utils.errors import DomainError, FieldFault, InvalidRequestError, NotFoundError


class WorkspaceNotYoursError(NotFoundError):
    """The workspace does not exist, or is not visible to the user."""

    slug = "no-workspace-of-yours"
    title = "No such workspace"
    detail = "There is no workspace of this name among yours; GET /auth/me lists them."


class ArgumentsRefusedError(InvalidRequestError):
    """Arguments must not be sent to the tool; `faults` names each with the reason."""

    def __init__(self, *faults: FieldFault) -> None:
        super().__init__(faults=faults)

    def under(self, prefix: str) -> InvalidRequestError:
        """Returns the error for clients. `prefix` is the path of the arguments in the request."""
        return InvalidRequestError(
            faults=[FieldFault(f"{prefix}.{name}", text) for name, text in self.faults]
        )


class TooManyCallsError(DomainError):
    """The user has the maximum number of concurrent calls on this instance."""

    status = 429
    slug = "too-many-calls"
    title = "You have too many calls under way"
    detail = "Wait until one of them has been answered."
    retry_after = 1


class TooManyJobsError(DomainError):
    """The user has the maximum number of running jobs.

    Attributes:
        silent: The ids of those jobs that may have ended without an event in the stream.
    """

    status = 429
    slug = "too-many-jobs"
    title = "You have too many jobs running"
    detail = (
        "Wait until one of them has ended; GET /api/jobs?status=running lists them, and "
        "?status=queued those that wait."
    )
    retry_after = 5

    def __init__(self, silent: Collection[str]) -> None:
        super().__init__()
        self.silent = silent


class JobEndedError(DomainError):
    """The job has ended, so it cannot be cancelled."""

    status = 409
    slug = "job-ended"
    title = "The job has ended"
    detail = "Only a job that is queued or running can be cancelled."


class CannotCancelError(DomainError):
    """The gateway has no tool that cancels jobs."""

    status = 409
    slug = "cannot-cancel"
    title = "Jobs cannot be cancelled here"
    detail = "The gateway has no tool named cancel_job. The job goes on until it ends."


class KeyReusedError(DomainError):
    """The idempotency key was used for a different request."""

    status = 422
    slug = "idempotency-key-reused"
    title = "This Idempotency-Key was used for something else"
    detail = "Take a new key for a new request; send the same request with the same key."


class StillRunningError(DomainError):
    """The first call with this idempotency key has not been answered yet."""

    status = 409
    slug = "still-running"
    title = "The first request with this Idempotency-Key has not been answered yet"
    detail = "Send it again in a few seconds: you then get the first answer."
    retry_after = 5


class OutcomeUnknownError(DomainError):
    """The outcome of the first call with this idempotency key is unknown."""

    status = 409
    slug = "outcome-unknown"
    title = "Nobody knows what became of the first request with this Idempotency-Key"
    detail = (
        "It may have been carried out, so it is not sent again. A job that it has started belongs "
        "to nobody: an administrator finds it at GET /api/jobs. To send it all the same take a new "
        "key."
    )
