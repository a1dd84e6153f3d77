"""Problem documents: every error has its own, and an answer of its own kind."""

from typing import Any

import pytest
import structlog

from src import problems
from src.main import create_app
from src.problems import FieldError, Problem, documented, respond
from src.routers.health import NotReady
from tests.support.builders import settings_of


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


@pytest.mark.parametrize("kind", [kind for kind in all_problems() if kind.status == 503])
def test_whoever_is_turned_away_for_now_is_told_when_to_come_back(kind: type[Problem]) -> None:
    assert int(respond(kind()).headers["retry-after"]) >= 1


@pytest.mark.parametrize("kind", [kind for kind in all_problems() if kind.status == 401])
def test_whoever_has_to_log_in_is_told_how(kind: type[Problem]) -> None:
    assert respond(kind()).headers["www-authenticate"] == "Bearer"


def test_routes_describe_them() -> None:
    answers = documented(problems.NotFound, problems.NotAuthenticated)
    assert set(answers) == {404, 401}
    assert "application/problem+json" in answers[404]["content"]


def answers(method: str, path: str) -> dict[str, Any]:
    operation = create_app(settings_of()).openapi()["paths"][path][method]
    documented: dict[str, Any] = operation["responses"]
    return documented


@pytest.mark.parametrize("path", ["/auth/login", "/api/crawl", "/agent", "/admin/users"])
def test_a_body_that_is_too_large_is_documented(path: str) -> None:
    assert answers("post", path)["413"]["description"] == problems.BodyTooLarge.title


def test_an_instance_that_is_not_ready_is_documented() -> None:
    assert answers("get", "/health/ready")["503"]["description"] == NotReady.title
