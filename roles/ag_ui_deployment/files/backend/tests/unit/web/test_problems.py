"""Problem documents: every error has its own type and content."""

import json
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

import src.main  # noqa: F401 - imports all modules with error classes
from src.services.events.errors import DrainingError, TooManyStreamsError
from src.services.gateway.errors import ModelFailedError, ToolRejectedError, UpstreamTimeoutError
from src.utils.errors import DomainError, FieldFault, FieldFaultError, InvalidRequestError
from src.web import problems
from src.web.middleware import UnexpectedErrors
from src.web.problems import respond


def all_errors() -> list[type[DomainError]]:
    """Return the error classes that declare at least a part of a problem document."""
    found, queue = [], [DomainError]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue += kind.__subclasses__()
    return [kind for kind in found if vars(kind).keys() & {"status", "slug", "title", "detail"}]


def bare(kind: type[DomainError]) -> DomainError:
    """Create an error without calling its constructor, which may require arguments."""
    return kind.__new__(kind)


def document(error: DomainError) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(bytes(respond(error).body))
    return decoded


def test_slugs_are_unique() -> None:
    slugs = [kind.slug for kind in all_errors()]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.slug)
def test_each_error_has_title_status_and_detail(kind: type[DomainError]) -> None:
    assert 400 <= kind.status < 600
    assert vars(kind).keys() >= {"slug", "title"}
    assert document(bare(kind))["detail"]


def test_problem_document_bytes() -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    response = respond(InvalidRequestError(faults=[FieldFault("body.x", "missing")]))
    structlog.contextvars.clear_contextvars()
    assert response.media_type == "application/problem+json"
    assert response.status_code == 422
    assert bytes(response.body) == (
        b'{"type":"urn:shield-ag-ui:problem:invalid-request","title":"The request is not valid",'
        b'"status":422,"detail":"Correct the named fields and send it again.","request_id":"r-1",'
        b'"errors":[{"field":"body.x","message":"missing"}]}'
    )


def test_instance_values_override_class_values() -> None:
    error = DrainingError("for the log", detail="Not now.", retry_after=7)
    assert document(error)["detail"] == "Not now."
    assert respond(error).headers["retry-after"] == "7"
    assert str(error) == "for the log"


def test_invalid_field_is_part_of_the_body() -> None:
    error = FieldFaultError("is not right", "code")
    assert str(error) == "is not right"
    assert document(error)["errors"] == [{"field": "body.code", "message": "is not right"}]


def test_tool_error_has_message_and_unknown_outcome() -> None:
    refused = ToolRejectedError("The site is closed.", faults=[FieldFault("url", "is closed")])
    assert document(refused)["detail"] == "The site is closed."
    assert document(refused)["errors"] == [{"field": "url", "message": "is closed"}]
    late = document(UpstreamTimeoutError("not for clients"))["detail"]
    assert late.startswith("The tool took too long.")
    assert "It may have been carried out all the same." in late


async def test_error_without_document_is_an_internal_error() -> None:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(UnexpectedErrors)

    @app.get("/fails")
    async def fails() -> None:
        raise ModelFailedError("It broke off.")

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        with structlog.testing.capture_logs() as logs:
            response = await http.get("/fails")
    assert (response.status_code, response.json()["type"]) == (
        500,
        "urn:shield-ag-ui:problem:internal-error",
    )
    assert [entry["event"] for entry in logs] == ["request_failed"]


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in all_errors()
        if kind.status == 503 or kind in {DrainingError, TooManyStreamsError}
    ],
)
def test_temporary_refusal_has_retry_after(kind: type[DomainError]) -> None:
    assert int(respond(bare(kind)).headers["retry-after"]) >= 1


@pytest.mark.parametrize("kind", [kind for kind in all_errors() if kind.status == 401])
def test_unauthorized_has_www_authenticate(kind: type[DomainError]) -> None:
    assert respond(bare(kind)).headers["www-authenticate"] == "Bearer"
