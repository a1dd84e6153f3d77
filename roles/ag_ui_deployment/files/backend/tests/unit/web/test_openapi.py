"""The content of the OpenAPI document."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ag_ui.core import EventType
from openapi_spec_validator import validate

from src import __version__
from src.main import create_app
from src.services.accounts.errors import AccountNotFoundError, WorkspaceNotFoundError
from src.services.agui import events as agui_events
from src.web import problems
from src.web.route_rules import rules_of
from tests.support.builders import settings_of
from tests.support.openapi import Operation, operations, resolved, sent_values, types_of

# AG-UI's own types: the body limit bounds their texts.
AGENT = ("POST /agent body", "POST /agent/connect body")


STREAMS = {"connect_agent", "run_agent", "stream_run_events", "stream_events", "stream_job_events"}
# The response of an unhealthy instance is not a problem document but a health report.
NO_PROBLEM = ("get_health", "503")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(settings_of()).openapi()


@pytest.fixture(scope="module")
def by_id(document: dict[str, Any]) -> dict[str, Operation]:
    return {one.details["operationId"]: one for one in operations(document)}


def test_version_and_licence_are_those_of_the_backend(document: dict[str, Any]) -> None:
    assert document["info"]["version"] == __version__
    assert document["info"]["license"]["identifier"] == "Apache-2.0"


def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


def test_references_can_be_resolved(document: dict[str, Any]) -> None:
    for reference in references(document):
        assert resolved(document, {"$ref": reference}), reference


def test_size_is_bounded(document: dict[str, Any]) -> None:
    assert len(json.dumps(document, separators=(",", ":"))) <= 200_000


class TestOperations:
    def test_operation_ids_are_unique_identifiers(
        self, document: dict[str, Any], by_id: dict[str, Operation]
    ) -> None:
        assert len(by_id) == len(list(operations(document)))
        for name, operation in by_id.items():
            assert re.fullmatch(r"[a-z]+(_[a-z]+){0,4}", name)
            assert not name.endswith(f"_{operation.method.lower()}")
        assert by_id["list_jobs"].path == "/api/jobs"

    def test_each_has_summary_and_permission(self, by_id: dict[str, Operation]) -> None:
        for name, operation in by_id.items():
            assert operation.details["summary"], name
            assert re.search(
                r"Needs (the permission `\w+:\w+`|a login|no login)\.$",
                operation.details["description"],
            ), name

    def test_security_schemes_match_the_route_rules(self, by_id: dict[str, Operation]) -> None:
        rules = {(one.method, one.path): one for one in rules_of(create_app(settings_of()))}
        for name, operation in by_id.items():
            schemes = [scheme for one in operation.details.get("security", []) for scheme in one]
            if not rules[operation.method, operation.path].needs_login:
                assert schemes == (["RefreshCookie"] if name == "refresh_tokens" else []), name
                continue
            expected = ["AccessToken", "AccessCookie"]
            if name in STREAMS - {"run_agent", "connect_agent"}:
                expected.append("Ticket")
            if name == "log_out":
                expected.append("RefreshCookie")
            assert schemes == expected, name

    def test_security_schemes_are_declared(self, document: dict[str, Any]) -> None:
        schemes = document["components"]["securitySchemes"]
        assert schemes["AccessToken"]["flows"]["password"]["tokenUrl"] == "/auth/token"
        locations = {name: (one.get("in"), one.get("name")) for name, one in schemes.items()}
        assert locations == {
            "AccessToken": (None, None),
            "AccessCookie": ("cookie", "__Host-ag_ui_access"),
            "RefreshCookie": ("cookie", "__Host-ag_ui_refresh"),
            "Ticket": ("query", "ticket"),
        }


class TestProblems:
    def test_each_is_declared_once_and_referenced(
        self, document: dict[str, Any], by_id: dict[str, Operation]
    ) -> None:
        for name, operation in by_id.items():
            for status, response in operation.details["responses"].items():
                if int(status) >= 400 and (name, status) != NO_PROBLEM:
                    assert [*response] == ["$ref"], (name, status)
        declared = document["components"]["responses"].values()
        for response in declared:
            schema = response["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
        assert len({one["description"] for one in declared}) == len(declared)

    def test_problems_with_the_same_status_are_all_documented(
        self, document: dict[str, Any], by_id: dict[str, Operation]
    ) -> None:
        def types(name: str, status: str) -> set[str]:
            response = resolved(document, by_id[name].details["responses"][status])
            return set(re.findall(r"`([a-z-]+)`:", response["description"]))

        too_many = {"too-many-calls", "too-many-jobs", "too-many-large-bodies", "too-many-requests"}
        assert types("crawl", "429") == too_many
        assert types("crawl", "422") == {"invalid-request", "tool-rejected"}
        for name in ("log_in", "crawl", "run_agent", "create_user"):
            assert types(name, "413") == {"body-too-large"}
        assert types("get_readiness", "503") == {"not-ready"}
        assert types("crawl", "403") == {"not-permitted", "wrong-origin"}
        assert types("log_in", "401") >= {"wrong-credentials", "second-factor-required"}
        assert "413" not in by_id["list_jobs"].details["responses"]

    def test_documented_problems_keep_their_titles(self) -> None:
        one, other = WorkspaceNotFoundError, AccountNotFoundError
        (response,) = problems.documented(one, other).values()
        assert response[problems.PROBLEMS] == {one.slug: one.title, other.slug: other.title}


class TestLists:
    def test_lists_are_in_an_envelope(
        self, document: dict[str, Any], by_id: dict[str, Operation]
    ) -> None:
        for name, schema in answers(document, by_id):
            assert "array" not in types_of(schema), name
            if name.startswith("list_"):
                assert {"items", "next_cursor"} <= schema["properties"].keys(), name

    def test_pagination_is_uniform(
        self, document: dict[str, Any], by_id: dict[str, Operation]
    ) -> None:
        paged = {
            name for name, operation in by_id.items() if "limit" in dict(operation.parameters())
        }
        assert paged >= {"list_jobs", "list_audit_entries", "list_dead_letters", "get_thread"}
        for name in paged:
            parameters = {one["name"]: one for one in by_id[name].details["parameters"]}
            assert "cursor" in parameters, name
            assert parameters.get("before", {"deprecated": True})["deprecated"], name
        shown = dict(answers(document, by_id))
        for name in paged:
            assert "next_cursor" in shown[name]["properties"], name

    def test_deprecated_ids_are_accompanied_by_id(self, document: dict[str, Any]) -> None:
        for name, schema in document["components"]["schemas"].items():
            old = {"job_id", "user_id"} & schema.get("properties", {}).keys()
            if old and name in {"AcceptedJob", "Member"}:
                assert "id" in schema["required"]
                assert all(schema["properties"][one]["deprecated"] for one in old)


class TestStreams:
    def test_streams_have_the_event_schema(self, by_id: dict[str, Operation]) -> None:
        streams = {
            name
            for name, operation in by_id.items()
            if "text/event-stream"
            in operation.details["responses"].get("200", {"content": {}})["content"]
        }
        assert streams == STREAMS
        for name in streams:
            schema = by_id[name].details["responses"]["200"]["content"]["text/event-stream"][
                "schema"
            ]
            assert schema["type"] == "string"
            assert schema["contentSchema"] == {"$ref": "#/components/schemas/AgUiEvent"}

    def test_schema_contains_every_event_type_of_the_backend(
        self, document: dict[str, Any]
    ) -> None:
        kinds = document["components"]["schemas"]["AgUiEvent"]["discriminator"]["mapping"].keys()
        used = {one.value for one in EventType} & {
            value for value in vars(agui_events).values() if isinstance(value, str)
        }
        assert len(used) > 10
        assert used <= kinds


class TestBounds:
    def test_numbers_in_requests_have_minimum_and_maximum(self, document: dict[str, Any]) -> None:
        unbounded = [
            where
            for where, schema in sent_values(document)
            if {"integer", "number"} & {*types_of(schema)}
            and not {"minimum", "maximum"} <= schema.keys()
        ]
        assert unbounded == []

    def test_texts_and_lists_in_requests_have_a_maximum_length(
        self, document: dict[str, Any]
    ) -> None:
        unbounded = [
            where
            for where, schema in sent_values(document)
            if is_long(schema) and not where.startswith(AGENT)
        ]
        assert unbounded == []


def is_long(schema: dict[str, Any]) -> bool:
    """Whether the schema allows a text or list of any length."""
    if "array" in types_of(schema):
        return "maxItems" not in schema
    bounds = {"maxLength", "enum", "const"}
    is_short = schema.get("format") in {"uuid", "date", "date-time"} or bounds & schema.keys()
    return "string" in types_of(schema) and not is_short


def answers(
    document: dict[str, Any], by_id: dict[str, Operation]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schema of each operation's successful JSON response."""
    for name, operation in by_id.items():
        for status, response in operation.details["responses"].items():
            content = response.get("content", {}).get("application/json")
            if status.startswith("2") and content is not None:
                yield name, resolved(document, content["schema"])


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)
