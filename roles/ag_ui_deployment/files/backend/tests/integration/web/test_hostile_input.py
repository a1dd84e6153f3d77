"""Malicious input is refused without any effect."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from jose import jwt

from src.config import Settings
from src.models.permissions import Role
from src.services.auth.tokens import key_id
from src.services.tools.catalogue import CATALOGUE
from tests.support.accounts import ask_login, bearer
from tests.support.agent import run_input
from tests.support.builders import JWT_SECRET
from tests.support.environment import Environment
from tests.support.openapi import (
    ANYTHING,
    Document,
    Operation,
    Request,
    operations,
    sample,
    variations,
    written,
)
from tests.support.problems import check_problem
from tests.support.scripted_gateway import scripted_gateway
from tests.support.server import PASSWORD, Backend, running

ALICE = "alice@shield.test"


def unsigned(claims: dict[str, Any], algorithm: str) -> str:
    head = {"alg": algorithm, "typ": "JWT", "kid": key_id(JWT_SECRET)}
    parts = (base64.urlsafe_b64encode(orjson.dumps(part)) for part in (head, claims))
    return b".".join(part.rstrip(b"=") for part in parts).decode() + "."


def signed(claims: dict[str, Any], key: str = JWT_SECRET) -> str:
    return jwt.encode(claims, key, algorithm="HS256", headers={"kid": key_id(JWT_SECRET)})


async def test_forged_tokens_are_refused(backend: Backend) -> None:
    alice, bob = await backend.add_user(ALICE), await backend.add_user("bob@shield.test")
    claims: dict[str, Any] = dict(jwt.get_unverified_claims(backend.token_of(alice)))
    assert (await backend.http.get("/auth/me", headers=bearer(signed(claims)))).status_code == 200
    now = int(time.time())
    forged = [
        *(unsigned(claims, name) for name in ("none", "None", "HS256", "")),
        signed(claims, "x" * 40),
        signed(claims | {"exp": now - 1}),
        signed(claims | {"nbf": now + 600}),
        signed(claims | {"aud": "another-service"}),
        signed(claims | {"iss": "somebody-else"}),
        signed(claims | {"typ": "refresh"}),
        # A real session and a real account that do not belong together.
        signed(claims | {"sub": str(bob.id), "role": "admin"}),
        signed(claims | {"sid": "00000000-0000-0000-0000-000000000000"}),
    ]
    for token in forged:
        answer = await backend.http.get("/auth/me", headers=bearer(token))
        check_problem(answer, 401, "not-authenticated")
    # The role in the token has no effect.
    raised = bearer(signed(claims | {"role": "admin"}))
    assert (await backend.http.get("/auth/me", headers=raised)).json()["role"] == "viewer"


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"[" * 60_000, {422}),
        (b'{"email":' * 5000, {422}),
        (b'{"email": "\\ud800", "password": "x"}', {422}),
        (b'{"email": "a\\u0000b", "password": "\\u0000"}', {401}),
        (b'{"email": "x\' OR 1=1 --", "password": "\' OR \'\'=\'"}', {401}),
        (b'{"email": "a@b.c\\r\\nBcc: d@e.f", "password": "x"}', {401}),
        (b'{"email": {"$ne": null}, "password": {"$ne": null}}', {422}),
        (b'{"email": "a@b.c", "password": NaN}', {400, 422}),
        (b"\xff\xfe", {400, 422}),
        (b"", {422}),
    ],
)
async def test_malformed_login_bodies_have_no_effect(
    backend: Backend, environment: Environment, body: bytes, statuses: set[int]
) -> None:
    await backend.add_user(ALICE)
    before = await environment.rows()
    headers = {"Content-Type": "application/json"}
    answer = await backend.http.post("/auth/login", content=body, headers=headers)
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert await environment.rows() == before


def part(name: str, value: str) -> str:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=x",
        # Decoding a megabyte of it would block the event loop for a quarter of a minute.
        "multipart/form-data; boundary=x; charset=punycode",
        # Decodes this user name to text that UTF-8 cannot encode.
        "multipart/form-data; boundary=x; charset=unicode_escape",
        'Multipart/Form-Data ; charset="unicode_escape"; boundary=x',
        "multipart/mixed; boundary=x",
    ],
)
async def test_no_route_accepts_multipart(backend: Backend, kind: str) -> None:
    alice = await backend.add_user(ALICE)
    body = part("username", "\\ud800") + part("password", "\\ud800") + "--x--\r\n"
    headers = {"Content-Type": kind} | bearer(backend.token_of(alice))
    for path in ("/auth/token", "/auth/login", "/api/query"):
        answer = await backend.http.post(path, content=body, headers=headers)
        (error,) = check_problem(answer, 422, "invalid-request")["errors"]
        assert error == {
            "field": "body",
            "message": "cannot be read as the type that it is sent as",
        }


async def test_forms_are_decoded_as_utf_8(backend: Backend) -> None:
    await backend.add_user(ALICE)
    kind = "application/x-www-form-urlencoded; charset=unicode_escape"
    right = b"username=alice%40shield.test&password=" + PASSWORD.replace(" ", "+").encode()
    odd = [b"%ED%A0%80", b"\xed\xa0\x80", b"\\ud800", b"\xff"]
    forms = [
        right,
        *(b"username=alice@shield.test&password=" + text for text in odd),
        *(b"password=x&username=" + text for text in odd),
    ]
    answers = [
        await backend.http.post("/auth/token", content=form, headers={"Content-Type": kind})
        for form in forms
    ]
    assert [answer.status_code for answer in answers] == [200] + [401] * 8


async def test_form_fields_have_a_maximum_length(backend: Backend) -> None:
    form = {"username": ALICE, "password": "x", "grant_type": "password"}
    maximum = form | {"username": "x" * 2000, "password": "x" * 2000}
    answer = await backend.http.post("/auth/token", data=maximum)
    check_problem(answer, 401, "wrong-credentials")
    names = ("username", "password", "scope", "client_id", "client_secret", "otp", "recovery_code")
    for name in names:
        answer = await backend.http.post("/auth/token", data=form | {name: "x" * 2001})
        (error,) = check_problem(answer, 422, "invalid-request")["errors"]
        assert error["field"] == f"body.{name}"


async def test_no_injection_into_headers_or_statements(
    backend: Backend, environment: Environment
) -> None:
    await backend.add_user(ALICE)
    agent = "'); DROP TABLE sessions; --\t\u00e9".encode("latin-1")
    answer = await backend.http.post(
        "/auth/login",
        json={"email": ALICE, "password": PASSWORD},
        headers=[(b"User-Agent", agent), (b"X-Forwarded-For", b"'; DROP TABLE users; --")],
    )
    assert answer.status_code == 200
    rows = await environment.query("SELECT user_agent FROM sessions WHERE user_agent LIKE '%DROP%'")
    assert len(rows) == 1
    for value in ("a\r\nSet-Cookie: x=y", "a%0d%0aSet-Cookie:%20x=y"):
        answer = await backend.http.get("/events", params={"ticket": value})
        check_problem(answer, 401, "not-authenticated")
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "name", ["Authorization", "Idempotency-Key", "Last-Event-ID", "AG-UI-Protocol-Version"]
)
async def test_header_with_one_value_is_refused_twice(backend: Backend, name: str) -> None:
    for path in ("/events", "/auth/me"):
        answer = await backend.http.get(path, headers=[(name, "1"), (name.lower(), "2")])
        (error,) = check_problem(answer, 422, "invalid-request")["errors"]
        assert error["field"] == f"header.{name.lower()}"


@pytest.mark.parametrize("path", ["/events/", "/auth/me/", "/docs/"])
async def test_no_redirect_repeats_the_host(backend: Backend, path: str) -> None:
    answer = await backend.http.get(backend.http.base_url.join(path), headers={"Host": "evil.test"})
    check_problem(answer, 404, "not-found")


async def test_homoglyph_addresses_are_different(backend: Backend) -> None:
    await backend.add_user(ALICE)
    for email in ("\u0430lice@shield.test", "alice@shi\u0435ld.test", "al\u0131ce@shield.test"):
        check_problem(await ask_login(backend, email), 401, "wrong-credentials")


# Numbers in JSON and URLs: beyond 32, 63 and 64 bits, beyond a float, with more digits than Python
# parses, and forms that only some parsers accept as numbers.
NUMBERS = (
    *map(str, (2**31, 2**63, 2**64, -(2**64), 10**30, 0.5, 1e300)),
    "1e400",
    "-1e400",
    "9" * 5000,
    "NaN",
)
AGENT_BODY = run_input(
    "?",
    state=ANYTHING,
    forwardedProps=ANYTHING,
    tools=[{"name": "theirs", "description": "?", "parameters": ANYTHING}],
    context=[{"description": "?", "value": "?"}],
)


def bodies_of(document: Document, operation: Operation) -> Iterator[tuple[str, Any]]:
    """Yield the media types and samples of an operation's bodies."""
    if operation.path == "/agent":
        yield "application/json", AGENT_BODY
    elif operation.path == "/api/tools/{name}":
        for tool in CATALOGUE.values():
            schema = tool.arguments.model_json_schema()
            yield "application/json", {"arguments": sample(schema, schema)}
    else:
        for kind, content in operation.details.get("requestBody", {}).get("content", {}).items():
            yield kind, sample(document, content["schema"])


def requests_of(document: Document) -> Iterator[Request]:
    """Yield requests with each number in each position of each operation."""
    for operation in operations(document):
        given = {name: str(sample(document, schema)) for name, schema in operation.parameters()}
        for number in NUMBERS:
            for name in given:
                yield operation.request(given | {name: number})
            for kind, body in bodies_of(document, operation):
                for varied in variations(body):
                    yield operation.request(given, kind, written(varied, kind, number))


async def test_no_number_causes_a_server_error(environment: Environment) -> None:
    limits = dict.fromkeys(
        (name for name in Settings.model_fields if "RATE_" in name), "9999999/hour"
    )
    bounds = {
        name: 100_000
        for name in Settings.model_fields
        if name.endswith("_PER_USER") and name not in limits
    }
    async with scripted_gateway("yes") as gateway:
        settings = environment.settings(
            LITELLM_URL=gateway, LITELLM_API_KEY="sk-x", **limits, **bounds
        )
        async with running(settings) as backend:
            admin = bearer(backend.token_of(await backend.add_user(ALICE, Role.ADMIN)))
            document = (await backend.http.get("/openapi.json")).json()
            failed = []
            # Requests that end the caller's session come last.
            for request in sorted(requests_of(document), key=lambda one: "logout" in one.path):
                headers = {**request.headers, **admin}
                sending = backend.http.build_request(
                    request.method, request.path, headers=headers, content=request.content
                )
                answer = await backend.http.send(sending, stream=True)
                # Streams continue until the client closes them.
                await answer.aclose()
                if answer.status_code >= 500 or answer.status_code in {401, 429}:
                    failed.append((answer.status_code, request))
            assert failed == []
