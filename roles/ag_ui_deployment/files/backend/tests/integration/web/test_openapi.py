"""The OpenAPI document says what the API does: for every role, whatever is sent.

Requests are made from the document, good ones and bad ones. No answer may be a 5xx, have a status or
a type that is not documented, or a body that does not fit its schema.
"""

import asyncio
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from src.config import Settings
from src.models.role import Role
from tests.support.accounts import bearer
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.server import running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Streams end when their clients go, and have tests of their own.
STREAM = "text/event-stream"
# They end the session with which the others are asked.
LAST = ("POST /auth/logout",)
EXAMPLES = 3

# Of all addresses and names those that may be crawled, and are asked of no name server.
schemathesis.openapi.format("uri", st.from_regex(r"https?://8\.8\.8\.8/[a-z]{0,9}", fullmatch=True))
schemathesis.openapi.format("hostname", st.from_regex(r"[a-z]{1,9}\.org", fullmatch=True))

# Enough for all of the requests together.
NO_LIMITS = dict.fromkeys(
    (name for name in Settings.model_fields if name.startswith("RATE_")), "1000000/minute"
)


def operations(document: dict[str, Any]) -> list[Any]:
    """Those that can be asked for, the destructive ones last."""
    schema = schemathesis.openapi.from_dict(document)
    results: list[Any] = list(schema.get_all_operations())
    found = [result.ok() for result in results]
    return sorted((one for one in found if not is_stream(one)), key=lambda one: one.label in LAST)


def is_stream(operation: Any) -> bool:
    answers = operation.definition.raw["responses"]
    return STREAM in answers.get("200", {}).get("content", {})


def ask(operation: Any, url: str, callers: list[dict[str, str]]) -> None:
    """Send what the document allows, and what it does not, in the name of each caller."""
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def send(case: Case[Any]) -> None:
        for headers in callers if "security" in operation.definition.raw else callers[:1]:
            # A session of each request's own: one for all would be a browser, with cookies.
            with requests.Session() as session:
                answer = case.call(base_url=url, headers=headers, session=session, timeout=20)
            case.validate_response(answer, checks=CHECKS)

    send()


def faults_of(document: dict[str, Any], url: str, callers: list[dict[str, str]]) -> list[str]:
    found = []
    for operation in operations(document):
        try:
            ask(operation, url, callers)
        except BaseException as error:  # noqa: BLE001 - groups of failures are no Exceptions
            found.append(f"{operation.label}: {error}")
    return found


async def test_the_document_is_true_for_every_role(
    environment: Environment, gateway: Gateway
) -> None:
    async with running(environment.settings(**NO_LIMITS, **gateway.settings())) as backend:
        document = (await backend.http.get("/openapi.json")).json()
        users = [await backend.add_user(f"{role}@shield.test", role) for role in Role]
        callers = [{}, *(bearer(backend.token_of(user)) for user in users)]
        url = str(backend.http.base_url)
        faults = await asyncio.to_thread(faults_of, document, url, callers)
        assert not faults, "\n\n".join(faults)
        # What only the tool itself can refuse was asked for as well.
        accepted = await environment.query(
            "SELECT DISTINCT tool FROM submissions WHERE state = 'done'"
        )
        assert {row[0] for row in accepted} >= {"crawl_web", "ingest_doc"}
