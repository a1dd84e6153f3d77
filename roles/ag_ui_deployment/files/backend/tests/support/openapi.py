"""Helpers to read an OpenAPI document and to generate requests from it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode
from uuid import UUID

Schema = dict[str, Any]
Document = dict[str, Any]

# The sample for a schema that allows any JSON.
ANYTHING = {"a": [1, {"b": 1}]}
# The placeholder in a varied body, which written() replaces.
PLACEHOLDER = "@placeholder@"
_TEXTS = {
    "uuid": str(UUID(int=1)),
    "date-time": "2026-01-01T00:00:00Z",
    "uri": "https://8.8.8.8/",
    "hostname": "example.org",
}


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    content: str | None


class Operation(NamedTuple):
    """`details` is the operation's object in the document."""

    method: str
    path: str
    details: dict[str, Any]

    def parameters(self) -> list[tuple[str, Schema]]:
        """Return name and schema of each parameter."""
        return [(one["name"], one["schema"]) for one in self.details.get("parameters", [])]

    def request(
        self, values: Mapping[str, str], kind: str | None = None, content: str | None = None
    ) -> Request:
        """Build a request.

        Args:
            values: The values of all parameters by name.
            kind: The media type of the body.
            content: The body.
        """
        path, query, headers = self.path, {}, {"Content-Type": kind} if kind else {}
        for one in self.details.get("parameters", []):
            name, value = one["name"], values[one["name"]]
            match one["in"]:
                case "path":
                    path = path.replace(f"{{{name}}}", quote(value, safe=""))
                case "query":
                    query[name] = value
                case "header":
                    headers[name] = value
        return Request(self.method, f"{path}?{urlencode(query)}", headers, content)


def operations(document: Document) -> Iterator[Operation]:
    """Yield all operations of the document."""
    for path, methods in document["paths"].items():
        for method, details in methods.items():
            yield Operation(method.upper(), path, details)


def resolved(document: Document, schema: Schema) -> Schema:
    """Resolve a schema's references."""
    while "$ref" in schema:
        part: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            part = part[name]
        schema = part
    return schema


def types_of(schema: Schema) -> list[str]:
    """Return the JSON types that the schema itself names."""
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def sent_values(document: Document) -> Iterator[tuple[str, Schema]]:
    """Yield the location and schema of every value in parameters and bodies."""
    for operation in operations(document):
        name = f"{operation.method} {operation.path}"
        for parameter, schema in operation.parameters():
            yield from _values(document, schema, f"{name} {parameter}", frozenset())
        for content in operation.details.get("requestBody", {}).get("content", {}).values():
            yield from _values(document, content["schema"], f"{name} body", frozenset())


def _values(
    document: Document, schema: Schema, where: str, seen: frozenset[str]
) -> Iterator[tuple[str, Schema]]:
    if "$ref" in schema:
        name = schema["$ref"]
        if name not in seen:
            yield from _values(document, resolved(document, schema), where, seen | {name})
        return
    yield where, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _values(document, inner, f"{where}.{name}", seen)
    for key in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(key, []):
            yield from _values(document, inner, where, seen)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _values(document, schema[key], f"{where}[]", seen)


def sample(document: Document, schema: Schema) -> Any:
    """Return a value for the schema with all fields; texts match common formats."""
    schema = resolved(document, schema)
    for key in ("anyOf", "oneOf", "examples", "enum"):
        if key in schema:
            first = schema[key][0]
            return sample(document, first) if key.endswith("Of") else first
    kind, value = next(iter(types_of(schema)), None), schema.get("const", ANYTHING)
    if kind == "object" and "properties" in schema:
        value = {name: sample(document, one) for name, one in schema["properties"].items()}
    elif kind == "array":
        value = [sample(document, schema["items"])]
    elif kind in {"integer", "number"}:
        value = schema.get("minimum", 1)
    elif kind == "boolean":
        value = True
    elif kind == "string":
        value = schema.get("const", _TEXTS.get(schema.get("format", ""), "1"))
    return value


def variations(value: Any) -> Iterator[Any]:
    """Yield copies of the value, each with one part replaced by PLACEHOLDER."""
    yield PLACEHOLDER
    if isinstance(value, dict):
        for name, part in value.items():
            for varied in variations(part):
                yield {**value, name: varied}
    if isinstance(value, list):
        for index, part in enumerate(value):
            for varied in variations(part):
                yield [*value[:index], varied, *value[index + 1 :]]


def written(varied: Any, kind: str, raw: str) -> str:
    """Serialise a body.

    Args:
        varied: A body with PLACEHOLDER at one position, see variations().
        kind: The media type.
        raw: The raw text to insert at PLACEHOLDER, unescaped.
    """
    if kind == "application/json":
        return json.dumps(varied).replace(f'"{PLACEHOLDER}"', raw)
    return urlencode(varied).replace(quote(PLACEHOLDER), raw) if isinstance(varied, dict) else raw
