"""The OpenAPI document describes the API correctly for every role and input.

Valid and invalid requests are generated from the document. No response may be a 5xx, have an
undocumented status or media type, or a body that does not match its schema.
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
from src.models.permissions import Role
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
# Streams end when their clients disconnect, and have separate tests.
STREAM = "text/event-stream"
# These end the session of the other requests.
LAST = ("POST /auth/logout",)
EXAMPLES = 3

# Only URLs and names that may be crawled and need no DNS lookup.
schemathesis.openapi.format("uri", st.from_regex(r"https?://8\.8\.8\.8/[a-z]{0,9}", fullmatch=True))
schemathesis.openapi.format("hostname", st.from_regex(r"[a-z]{1,9}\.org", fullmatch=True))

# Enough for all requests together.
NO_LIMITS = dict.fromkeys(
    (name for name in Settings.model_fields if name.startswith("RATE_")), "1000000/minute"
)


def operations(document: dict[str, Any]) -> list[Any]:
    """Return the operations to test, the destructive ones last."""
    schema = schemathesis.openapi.from_dict(document)
    results: list[Any] = list(schema.get_all_operations())
    found = [result.ok() for result in results]
    return sorted((one for one in found if not is_stream(one)), key=lambda one: one.label in LAST)


def is_stream(operation: Any) -> bool:
    answers = operation.definition.raw["responses"]
    return STREAM in answers.get("200", {}).get("content", {})


def ask(operation: Any, url: str, callers: list[dict[str, str]]) -> None:
    """Send valid and invalid requests as each caller."""
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
            # A new session for each request: a shared one would keep cookies like a browser.
            with requests.Session() as session:
                answer = case.call(base_url=url, headers=headers, session=session, timeout=20)
            case.validate_response(answer, checks=CHECKS)

    send()


def faults_of(document: dict[str, Any], url: str, callers: list[dict[str, str]]) -> list[str]:
    found = []
    for operation in operations(document):
        try:
            ask(operation, url, callers)
        except BaseException as error:  # noqa: BLE001 - includes BaseExceptionGroup
            found.append(f"{operation.label}: {error}")
    return found


async def test_responses_match_the_document_for_every_role(
    environment: Environment, gateway: Gateway
) -> None:
    async with running(environment.settings(**NO_LIMITS, **gateway.settings())) as backend:
        document = (await backend.http.get("/openapi.json")).json()
        users = [await backend.add_user(f"{role}@shield.test", role) for role in Role]
        callers = [{}, *(bearer(backend.token_of(user)) for user in users)]
        url = str(backend.http.base_url)
        faults = await asyncio.to_thread(faults_of, document, url, callers)
        assert not faults, "\n\n".join(faults)
        # Some requests reached the tools themselves.
        accepted = await environment.query(
            "SELECT DISTINCT tool FROM submissions WHERE state = 'done'"
        )
        assert {row[0] for row in accepted} >= {"crawl_web", "ingest_doc"}
