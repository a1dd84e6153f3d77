"""The base classes of the errors that are reported to clients."""

from collections.abc import Sequence
from typing import NamedTuple


class FieldFault(NamedTuple):
    """What is wrong with one field of a request, such as `body.email`."""

    field: str
    message: str


class DomainError(Exception):
    """An error that is reported to clients as a problem document.

    A subclass declares the document by class attributes, or inherits it. The document of this class
    is the response to unexpected errors.

    Attributes:
        status: The HTTP status.
        slug: The type of the problem: urn:shield-ag-ui:problem:SLUG.
        title: A summary of the problem, the same for each occurrence.
        detail: What the client can do.
        retry_after: Seconds after which the same request may succeed; None if unknown.
        faults: The invalid fields.
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
        """Keyword arguments override class attributes. `args` are not reported to clients."""
        super().__init__(*args)
        if detail:
            self.detail = detail
        if retry_after is not None:
            self.retry_after = retry_after
        if faults:
            self.faults = tuple(faults)

    def explain(self) -> str:
        """Returns the detail of the document."""
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
    """One field of the body is invalid; the message says why."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message, faults=[FieldFault(f"body.{field}", message)])
