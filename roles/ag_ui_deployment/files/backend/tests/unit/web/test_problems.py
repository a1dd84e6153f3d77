"""Problem documents: every error has its own type and content."""

import pytest
import structlog

import src.main  # noqa: F401 - imports all modules with problem classes
from src.web import problems
from src.web.problems import FieldError, Problem, respond


def all_problems() -> list[type[Problem]]:
    found, queue = [], [Problem]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue += kind.__subclasses__()
    return found


def test_each_has_a_type_of_its_own() -> None:
    slugs = [kind.slug for kind in all_problems()]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("kind", all_problems(), ids=lambda kind: kind.slug)
def test_each_has_a_title_and_an_error_status(kind: type[Problem]) -> None:
    assert 400 <= kind.status < 600
    assert kind.title
    assert kind("a detail").detail == "a detail"


def test_a_document() -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    error = problems.InvalidRequest(errors=[FieldError(field="body.x", message="missing")])
    response = respond(error)
    structlog.contextvars.clear_contextvars()
    assert response.media_type == "application/problem+json"
    assert response.status_code == 422
    assert bytes(response.body) == (
        b'{"type":"urn:shield-ag-ui:problem:invalid-request","title":"The request is not valid",'
        b'"status":422,"detail":"Correct the named fields and send it again.","request_id":"r-1",'
        b'"errors":[{"field":"body.x","message":"missing"}]}'
    )


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in all_problems()
        if kind.status == 503 or kind in {problems.Draining, problems.TooManyStreams}
    ],
)
def test_whoever_is_turned_away_for_now_is_told_when_to_come_back(kind: type[Problem]) -> None:
    assert int(respond(kind()).headers["retry-after"]) >= 1


@pytest.mark.parametrize("kind", [kind for kind in all_problems() if kind.status == 401])
def test_whoever_has_to_log_in_is_told_how(kind: type[Problem]) -> None:
    assert respond(kind()).headers["www-authenticate"] == "Bearer"
