"""Completes the OpenAPI document that FastAPI derives from the routes.

FastAPI repeats each problem document in each operation, does not know of cookies and tickets, and
has one problem per status. Here each problem response is declared once and referenced, under a name
composed of the problems that it may contain.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ag_ui.core
import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute

from src.services.auth.errors import LimitReachedError, NotAuthenticatedError
from src.services.rbac_service import NotPermittedError
from src.utils.errors import DomainError, InvalidRequestError
from src.utils.json_types import JsonObject
from src.utils.large_bodies import TooManyBodiesError, TooManyBodiesOfUserError
from src.web.api_route import BodyTooLargeError, SlowBodyError
from src.web.cookies import ACCESS, REFRESH, SAFE_METHODS, WrongOriginError
from src.web.dependencies import BEARER_SCHEME, REFRESH_COOKIE_SCHEME
from src.web.problems import MEDIA_TYPE, PROBLEMS, ProblemDocument
from src.web.route_rules import RouteRule, rules_of

# The build of the image writes it, because deriving the document takes a second of each start.
_DOCUMENT = Path(__file__).resolve().parents[2] / "openapi.json"
COOKIE, TICKET = "AccessCookie", "Ticket"
_EVENT_STREAM = "text/event-stream"
_SECURITY_SCHEMES: JsonObject = {
    COOKIE: {
        "type": "apiKey",
        "in": "cookie",
        "name": ACCESS,
        "description": "From POST /auth/login with `cookies`. Writes also need the header Origin.",
    },
    REFRESH_COOKIE_SCHEME: {
        "type": "apiKey",
        "in": "cookie",
        "name": REFRESH,
        "description": "The refresh token of a browser; good for one refresh",
    },
    TICKET: {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "From POST /auth/ticket; opens one event stream, once",
    },
}
# Rate-limited operations send the first two with every response. They are documented only for the
# response that reports an exceeded limit.
_RATE_LIMIT_HEADERS: JsonObject = {
    "RateLimit-Policy": {
        "description": "The limits that counted the request: amount `q` in a window of `w` seconds",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "What is left of them: `r` requests, more in `t` seconds",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "In seconds", "schema": {"type": "integer"}},
}
# With these keywords a nullable type would need null among their values too.
_KEYWORDS_LISTING_VALUES = frozenset({"enum", "const"})


def operation_id(route: APIRoute) -> str:
    """Uses the name of the route function as the operation id."""
    return route.name


def install(app: FastAPI) -> None:
    """Reads the document of the image, or derives and completes it, when it is first requested."""
    derived_openapi = app.openapi

    def openapi() -> JsonObject:
        if app.openapi_schema is None:
            rules = {(rule.method, rule.path): rule for rule in rules_of(app)}
            if _DOCUMENT.exists():
                app.openapi_schema = orjson.loads(_DOCUMENT.read_bytes())
            else:
                _complete(derived_openapi(), rules)
        assert app.openapi_schema is not None  # noqa: S101 - FastAPI caches the document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def _complete(document: JsonObject, rules: Mapping[tuple[str, str], RouteRule]) -> None:
    components = document["components"]
    components["securitySchemes"] |= _SECURITY_SCHEMES
    components["responses"] = {}
    schemas = components["schemas"]
    schemas["Problem"] = ProblemDocument.model_json_schema(
        ref_template="#/components/schemas/{model}"
    )
    schemas |= schemas["Problem"].pop("$defs")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            rule = rules[method.upper(), path]
            _describe(operation, rule)
            _secure(operation)
            _reference_problems(operation, rule, components["responses"])
            _describe_stream(operation)
            for parameter in operation.get("parameters", []):
                parameter["schema"] = _of_parameter(parameter["schema"])
    # FastAPI's schemas of a validation error; the API answers with problem documents instead.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    # The descriptions of AG-UI's types are long.
    for name in vars(ag_ui.core).keys() & schemas.keys():
        schemas[name].pop("description", None)
    for part in (document["paths"], schemas):
        _shorten(part)


def _describe(operation: JsonObject, rule: RouteRule) -> None:
    """Adds the required permission or login to the description."""
    if rule.permission is not None:
        requirement = f"Needs the permission `{rule.permission}`."
    else:
        requirement = "Needs a login." if rule.needs_login else "Needs no login."
    description = operation.get("description")
    operation["description"] = f"{description}\n\n{requirement}" if description else requirement


def _secure(operation: JsonObject) -> None:
    """Adds the cookie to operations with a bearer token, and the ticket to streams."""
    schemes = operation.get("security", [])
    if {BEARER_SCHEME: []} in schemes:
        schemes.insert(1, {COOKIE: []})
        if any(parameter["name"] == "ticket" for parameter in operation.get("parameters", [])):
            schemes.append({TICKET: []})


def _reference_problems(operation: JsonObject, rule: RouteRule, shared: JsonObject) -> None:
    responses = operation["responses"]
    for status, problems in _problems_of(operation, rule).items():
        name = "Or".join(sorted(map(_name_of, problems)))
        shared.setdefault(name, _response_of(problems))
        responses[status] = {"$ref": f"#/components/responses/{name}"}
    for status in [status for status, response in responses.items() if PROBLEMS in response]:
        del responses[status]
    operation["responses"] = dict(sorted(responses.items()))


def _problems_of(operation: JsonObject, rule: RouteRule) -> dict[str, dict[str, str]]:
    """Returns the problems of an operation: their titles by type, by status."""
    problems_by_status: dict[str, dict[str, str]] = {
        status: dict(response[PROBLEMS])
        for status, response in operation["responses"].items()
        if PROBLEMS in response
    }
    for problem in _general_problems(operation, rule):
        problems_by_status.setdefault(str(problem.status), {})[problem.slug] = problem.title
    return problems_by_status


def _general_problems(operation: JsonObject, rule: RouteRule) -> Iterator[type[DomainError]]:
    """Yields the problems that FastAPI loses when it merges the responses of routers and routes."""
    if rule.needs_login:
        yield NotAuthenticatedError
        if rule.method not in SAFE_METHODS:
            yield WrongOriginError
    if rule.permission is not None:
        yield NotPermittedError
    if "429" in operation["responses"]:
        yield LimitReachedError
        if "requestBody" in operation:
            yield BodyTooLargeError
            if rule.needs_login:
                # Large bodies require a login.
                yield from (SlowBodyError, TooManyBodiesError, TooManyBodiesOfUserError)
        # Also without parameters, because some headers may be sent only once.
        yield InvalidRequestError


def _name_of(slug: str) -> str:
    return "".join(word.capitalize() for word in slug.split("-"))


def _response_of(problems: Mapping[str, str]) -> JsonObject:
    types = "; ".join(f"`{slug}`: {title}" for slug, title in sorted(problems.items()))
    headers = _RATE_LIMIT_HEADERS if LimitReachedError.slug in problems else {}
    return {
        "description": types,
        **({"headers": headers} if headers else {}),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _describe_stream(operation: JsonObject) -> None:
    """Declares the body of a stream as text, with the JSON schema of the `data` of its events."""
    content = operation["responses"].get("200", {}).get("content", {})
    if _EVENT_STREAM in content:
        event = {"$ref": content[_EVENT_STREAM]["schema"]["$ref"]}
        content[_EVENT_STREAM]["schema"] = {
            "type": "string",
            "description": "Server-Sent Events; the `data` of each is an AG-UI event as JSON",
            "contentMediaType": _EVENT_STREAM,
            "contentSchema": event,
        }


def _of_parameter(schema: JsonObject) -> JsonObject:
    """Removes null, which a URL or a header cannot contain, and the duplicate description."""
    variants = [variant for variant in schema.get("anyOf", []) if variant != {"type": "null"}]
    other_keywords = {
        name: value for name, value in schema.items() if name not in {"anyOf", "description"}
    }
    return {**variants[0], **other_keywords} if len(variants) == 1 else schema


def _shorten(part: Any) -> None:
    """Removes titles, which repeat field names, and defaults. Shortens nullable types."""
    if isinstance(part, list):
        for inner in part:
            _shorten(inner)
    if not isinstance(part, dict):
        return
    for inner in part.values():
        _shorten(inner)
    if isinstance(part.get("title"), str):
        del part["title"]
    if part.get("additionalProperties") is True and "properties" in part:
        del part["additionalProperties"]
    match part.get("anyOf"):
        case [{"type": str(type_name), **other_keywords}, {"type": "null"}] if (
            not _KEYWORDS_LISTING_VALUES & other_keywords.keys()
        ):
            del part["anyOf"]
            part |= {"type": [type_name, "null"], **other_keywords}
