"""Converts exceptions to RFC 9457 problem documents."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator
from starlette.exceptions import HTTPException
from starlette.responses import Response

from src.utils.database import DATABASE_ERRORS, is_outage
from src.utils.errors import DomainError, FieldFault, InvalidRequestError, NotFoundError

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
# The key of the problems in the OpenAPI responses of a route.
PROBLEMS = "x-problems"
TYPE_PREFIX = "urn:shield-ag-ui:problem:"
# OpenAPI responses of a route, by status.
ApiResponses = dict[int | str, dict[str, Any]]
_UNAUTHORIZED = 401
# FastAPI's status for a body that it cannot decode.
_UNREADABLE = 400
_FIELD_MAX = 200
# A body can contain many thousands of errors.
_MAX_ERRORS = 20


def _bounded_text(text: str) -> str:
    """Truncates text and replaces unencodable characters: clients can choose field names."""
    return text.encode(errors="replace").decode()[:_FIELD_MAX]


class FieldError(BaseModel):
    field: Annotated[str, BeforeValidator(_bounded_text)]
    message: Annotated[str, BeforeValidator(_bounded_text)]


class ProblemDocument(BaseModel):
    """The body of every error. `errors` names the fields at fault, where there are any."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: list[FieldError] | None = None


class UnreadableBodyError(InvalidRequestError):
    faults = (FieldFault("body", "cannot be read as the type that it is sent as"),)


class DatabaseUnavailableError(DomainError):
    status = 503
    slug = "database-unavailable"
    title = "The database does not answer"
    detail = "Live streams go on; what needs stored data does not. Try again in a few seconds."
    retry_after = 5


def documented(*errors: type[DomainError]) -> ApiResponses:
    """Returns the OpenAPI responses of a route that can raise these errors, by status.

    src/web/openapi.py replaces them by references to shared responses.
    """
    responses: ApiResponses = {}
    for error in errors:
        response = responses.setdefault(error.status, {"description": "", PROBLEMS: {}})
        response[PROBLEMS][error.slug] = error.title
    return responses


def respond(error: DomainError, headers: Mapping[str, str] | None = None) -> Response:
    document = ProblemDocument(
        type=TYPE_PREFIX + error.slug,
        title=error.title,
        status=error.status,
        detail=error.explain(),
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
        errors=[FieldError(field=name, message=text) for name, text in error.faults] or None,
    )
    return Response(
        document.model_dump_json(exclude_none=True),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=dict(_headers_of(error)) | dict(headers or {}),
    )


def _headers_of(error: DomainError) -> Iterator[tuple[str, str]]:
    if error.status == _UNAUTHORIZED:
        yield "WWW-Authenticate", "Bearer"
    if error.retry_after is not None:
        yield "Retry-After", str(error.retry_after)


def invalid_request(errors: Iterable[Mapping[str, Any]]) -> InvalidRequestError:
    """Reports the first of Pydantic's errors, without the input, which may be a password."""
    return InvalidRequestError(
        faults=[
            FieldFault(".".join(map(str, item["loc"])), item["msg"])
            for item in islice(errors, _MAX_ERRORS)
        ]
    )


def install(app: FastAPI) -> None:
    """Registers the handlers that answer exceptions with problem documents."""
    app.add_exception_handler(DomainError, _on_domain_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    for error_class in DATABASE_ERRORS:
        app.add_exception_handler(error_class, _on_database_error)


async def _on_domain_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)  # noqa: S101 - guaranteed by the registration
    if error.slug == DomainError.slug:
        # It declares no document, since no client should see it. UnexpectedErrors logs it.
        raise error
    return respond(error)


async def _on_database_error(_request: Request, error: Exception) -> Response:
    if not is_outage(error):
        raise error
    logger.warning("database_unavailable", error=str(error))
    return respond(DatabaseUnavailableError())


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - guaranteed by the registration
    if isinstance(error.__cause__, DomainError):
        # FastAPI wraps other errors that are raised while it reads a body in an HTTPException.
        return respond(error.__cause__)
    if error.status_code == NotFoundError.status:
        return respond(NotFoundError())
    if error.status_code == _UNREADABLE:
        return respond(UnreadableBodyError())
    problem = DomainError(detail=str(error.detail))
    problem.status = error.status_code
    problem.slug = str(error.detail).lower().replace(" ", "-")
    problem.title = str(error.detail)
    return respond(problem, error.headers)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - guaranteed by the registration
    return respond(invalid_request(error.errors()))
