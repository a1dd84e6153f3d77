"""The root of the errors that clients are told of. Each is declared once, where it is raised."""

from collections.abc import Sequence
from typing import NamedTuple


class FieldFault(NamedTuple):
    """What is wrong with one field, such as `body.email`, of what was given."""

    field: str
    message: str


class DomainError(Exception):
    """An error that a client is answered with as a problem document.

    A subclass declares the document by class attributes, or has that of the class above it. The
    document of this class is the answer to errors that nobody expected.

    Attributes:
        status: The HTTP status.
        slug: The type of the problem: urn:shield-ag-ui:problem:SLUG.
        title: What happened, in the same words each time.
        detail: What the client can do.
        retry_after: After how many seconds the same request may succeed, where that is known.
        faults: The fields at fault.
    """

    status = 500
    slug = "internal-error"
    title = "Something went wrong here"
    detail = "The error has been logged under the request id; try again, or tell the operator."
    retry_after: int | None = None
    faults: Sequence[FieldFault] = ()

    def __init__(
        self,
        *args: object,
        detail: str | None = None,
        retry_after: int | None = None,
        faults: Sequence[FieldFault] = (),
    ) -> None:
        """What is given by name replaces what the class declares; `args` are not for clients."""
        super().__init__(*args)
        if detail:
            self.detail = detail
        if retry_after is not None:
            self.retry_after = retry_after
        if faults:
            self.faults = tuple(faults)

    def explain(self) -> str:
        """The detail of the document."""
        return self.detail


class NotFoundError(DomainError):
    status = 404
    slug = "not-found"
    title = "Not found"
    detail = "There is nothing here under this address."


class InvalidRequestError(DomainError):
    status = 422
    slug = "invalid-request"
    title = "The request is not valid"
    detail = "Correct the named fields and send it again."


class FieldFaultError(InvalidRequestError):
    """One field of the body cannot be taken; the message says why."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message, faults=[FieldFault(f"body.{field}", message)])
