"""Why a tool is not called, before the gateway is asked."""

from collections.abc import Collection

from src.utils.errors import DomainError, FieldFault, InvalidRequestError, NotFoundError


class WorkspaceNotYoursError(NotFoundError):
    """There is no such workspace, or none that the user may know of."""

    slug = "no-workspace-of-yours"
    title = "No such workspace"
    detail = "There is no workspace of this name among yours; GET /auth/me lists them."


class ArgumentsRefusedError(InvalidRequestError):
    """Arguments that must not leave; `faults` names each with what is wrong."""

    def __init__(self, *faults: FieldFault) -> None:
        super().__init__(faults=faults)

    def under(self, prefix: str) -> InvalidRequestError:
        """The same for clients; `prefix` is where the arguments stand in the request."""
        return InvalidRequestError(
            faults=[FieldFault(f"{prefix}.{name}", text) for name, text in self.faults]
        )


class TooManyCallsError(DomainError):
    """The user has as many calls under way here as they may."""

    status = 429
    slug = "too-many-calls"
    title = "You have too many calls under way"
    detail = "Wait until one of them has been answered."
    retry_after = 1


class TooManyJobsError(DomainError):
    """The user has as many running jobs as they may.

    `silent` are those of them that may have ended without that the stream told.
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


class KeyReusedError(DomainError):
    """The idempotency key was used for something else."""

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
    """Nobody knows what became of the first call with this idempotency key."""

    status = 409
    slug = "outcome-unknown"
    title = "Nobody knows what became of the first request with this Idempotency-Key"
    detail = (
        "It may have been carried out, so it is not sent again. A job that it has started belongs "
        "to nobody: an administrator finds it at GET /api/jobs. To send it all the same take a new "
        "key."
    )
