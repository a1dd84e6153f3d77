"""What the OpenAPI document says of the API."""

from typing import Any

import pytest

from src.main import create_app
from tests.support.builders import settings_of
from tests.support.openapi import sent_values

# AG-UI's own types: the size of the body bounds their texts.
AGENT = "POST /agent body"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(settings_of()).openapi()


class TestBounds:
    def test_every_number_that_is_sent_has_a_minimum_and_a_maximum(
        self, document: dict[str, Any]
    ) -> None:
        unbounded = [
            where
            for where, schema in sent_values(document)
            if schema.get("type") in {"integer", "number"}
            and not {"minimum", "maximum"} <= schema.keys()
        ]
        assert unbounded == []

    def test_every_text_and_list_that_is_sent_has_a_greatest_length(
        self, document: dict[str, Any]
    ) -> None:
        unbounded = [
            where
            for where, schema in sent_values(document)
            if is_long(schema) and not where.startswith(AGENT)
        ]
        assert unbounded == []


def is_long(schema: dict[str, Any]) -> bool:
    """Whether a text or a list of any length fits the schema."""
    if schema.get("type") == "array":
        return "maxItems" not in schema
    bounds = {"maxLength", "enum", "const"}
    is_short = schema.get("format") in {"uuid", "date-time"} or bounds & schema.keys()
    return schema.get("type") == "string" and not is_short
