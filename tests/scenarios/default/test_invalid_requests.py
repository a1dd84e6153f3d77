"""Invalid input is refused with a problem document that says why, and changes nothing."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.scenarios.support.http import request

if TYPE_CHECKING:
    from tests.scenarios.support.http import Answer
    from tests.scenarios.support.site import Account, Site

CURSORS = [
    "abc",
    "1-2-3",
    "-1",
    "1-",
    "-",
    "1.5-0",
    "0x1-0",
    "\u0661-0",
    "$",
    ">",
    "99999999999999999999999-0",
    "1-99999999999999999999999",
    "1-0; DROP TABLE events",
    "1" * 5000,
]
MEBIBYTE = 1024 * 1024


def problem(answer: Answer, status: int) -> dict[str, Any]:
    """Return the problem document of an answer, after checking the required members."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"]
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def fields(document: dict[str, Any]) -> set[str]:
    """Return the names of the invalid fields, without the part of the request that holds them."""
    return {error["field"].rpartition(".")[2] for error in document["errors"]}


@pytest.mark.parametrize("cursor", CURSORS, ids=range(len(CURSORS)))
def test_malformed_cursor_is_refused(site: Site, user: Account, cursor: str) -> None:
    # A cursor that is too long is refused before it is parsed.
    status = 400 if len(cursor) < 100 else 422
    for path in ("/events", "/api/jobs/no-such-job/events"):
        query = f"{path}?last_event_id={quote(cursor)}"
        problem(request(site.proxy, "GET", query, token=user.token), status)
        if cursor.isascii():
            header = {"Last-Event-ID": cursor}
            problem(request(site.proxy, "GET", path, token=user.token, headers=header), status)


def test_last_event_id_header_takes_precedence_over_the_query(site: Site, user: Account) -> None:
    path = "/api/jobs/no-such-job/events"
    header = {"Last-Event-ID": "1-0"}
    problem(
        request(site.proxy, "GET", f"{path}?last_event_id=abc", token=user.token, headers=header),
        404,
    )
    header = {"Last-Event-ID": "abc"}
    problem(
        request(site.proxy, "GET", f"{path}?last_event_id=1-0", token=user.token, headers=header),
        400,
    )


@pytest.mark.parametrize("size", [MEBIBYTE + 1, 3 * MEBIBYTE])
def test_body_above_the_limit_is_413(site: Site, size: int) -> None:
    """The backend refuses a body slightly above the limit, the proxy one far above it."""
    header = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"username=" + b"x" * (size - len(b"username="))
    for route in site.routes:
        problem(request(route, "POST", "/auth/token", body=body, headers=header), 413)


def test_chunked_body_above_the_limit_is_413(site: Site) -> None:
    header = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Transfer-Encoding": "chunked",
    }
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (MEBIBYTE + 1, b"x" * (MEBIBYTE + 1))
    for instance in site.instances:
        problem(request(instance, "POST", "/auth/token", body=body, headers=header), 413)


def test_missing_form_names_both_fields(site: Site) -> None:
    document = problem(request(site.proxy, "POST", "/auth/token"), 422)
    assert fields(document) >= {"username", "password"}


def test_incomplete_form_names_the_missing_field(site: Site) -> None:
    answer = request(site.proxy, "POST", "/auth/token", form={"username": "admin@example.com"})
    document = problem(answer, 422)
    assert fields(document) == {"password"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"username": "admin@example.com", "password": "a-password-1"}'),
        ("application/json", b'{"username": '),
        ("text/plain", b"username=admin@example.com"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
        ("application/x-www-form-urlencoded", b"\xff\xfe\x00"),
    ],
)
def test_body_that_is_not_a_form_is_refused(site: Site, kind: str, body: bytes) -> None:
    answer = request(site.proxy, "POST", "/auth/token", body=body, headers={"Content-Type": kind})
    assert answer.status in {400, 422}
    problem(answer, answer.status)


def test_password_of_an_invalid_form_is_not_echoed(site: Site) -> None:
    answer = request(site.proxy, "POST", "/auth/token", form={"password": "correct-horse-battery"})
    problem(answer, 422)
    assert b"correct-horse-battery" not in answer.body


def test_wrong_password_and_unknown_user_get_the_same_response(site: Site, user: Account) -> None:
    wrong = problem(site.ask_for_token(user.email, "not the password"), 401)
    unknown = problem(site.ask_for_token("nobody@example.com", "not the password"), 401)
    assert {**wrong, "request_id": ""} == {**unknown, "request_id": ""}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=many",
        "limit=1000000",
        "status=tired",
        "cursor=%00",
        "cursor=x",
    ],
)
def test_invalid_job_list_query_is_refused(site: Site, user: Account, query: str) -> None:
    answer = request(site.proxy, "GET", f"/api/jobs?{query}", token=user.token)
    assert answer.status in {400, 422}
    problem(answer, answer.status)


def test_unknown_path_is_404(site: Site) -> None:
    problem(request(site.proxy, "GET", "/nothing-here"), 404)


def test_wrong_method_is_405(site: Site) -> None:
    problem(request(site.proxy, "DELETE", "/events"), 405)


def test_request_id_is_echoed_or_generated(site: Site) -> None:
    named = {"X-Request-ID": "scenario-0123456789"}
    for route in site.routes:
        answer = request(route, "GET", "/nothing-here", headers=named)
        assert problem(answer, 404)["request_id"] == named["X-Request-ID"]
        assert problem(request(route, "GET", "/nothing-here"), 404)["request_id"]


def test_too_long_request_id_is_replaced_at_every_route(site: Site) -> None:
    """Nginx and the backend use the same length limit, so that their logs can be correlated."""
    for route in site.routes:
        for length, is_kept in ((64, True), (65, False)):
            sent = "x" * length
            answer = request(route, "GET", "/nothing-here", headers={"X-Request-ID": sent})
            request_id = problem(answer, 404)["request_id"]
            assert answer.headers["x-request-id"] == request_id
            assert (request_id == sent) is is_kept, route.name


def test_request_id_with_markup_is_replaced(site: Site) -> None:
    answer = request(
        site.proxy, "GET", "/nothing-here", headers={"X-Request-ID": 'x" onload="alert(1)'}
    )
    assert "onload" not in problem(answer, 404)["request_id"]


def test_http_redirects_to_https(site: Site) -> None:
    connection = http.client.HTTPConnection(site.dev.address, 80, timeout=10)
    connection.request("GET", "/health?x=1", headers={"Host": site.proxy.server_name})
    response = connection.getresponse()
    assert response.status == 308
    assert response.headers["Location"] == f"https://{site.proxy.server_name}/health?x=1"
    response.read()
    connection.close()
