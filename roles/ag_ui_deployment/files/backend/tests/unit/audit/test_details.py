"""Recorded details are plain, bounded and free of secrets."""

from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.services.audit.details import bounded_text, canonical_details

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), _VALUES))
def test_any_details_become_bounded_valid_json(details: dict[str, Any]) -> None:
    text = canonical_details(details)
    assert isinstance(orjson.loads(text), dict)
    assert len(text.encode()) <= 4096
    assert "\\u0000" not in text


def test_key_order_does_not_matter() -> None:
    assert canonical_details({"b": 1, "a": 2}) == canonical_details({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "details",
    [
        {"password": "hunter2"},
        {"new_password": "hunter2", "email": "a@b.test"},
        {"inner": {"refresh_token": "hunter2"}},
        {"list": [{"api_key": "hunter2"}]},
        {"url": "postgresql://shield:hunter2@db/shield"},
        {"header": "Bearer hunter2"},
    ],
)
def test_secrets_are_removed(details: dict[str, Any]) -> None:
    assert "hunter2" not in canonical_details(details)


def test_oversized_values_are_omitted() -> None:
    kept = orjson.loads(canonical_details({str(i): "x" * 500 for i in range(50)}))
    assert list(kept) == ["omitted"]
    assert len(canonical_details({"document": "x" * 100_000})) < 600
    deep: Any = "end"
    for _ in range(300):
        deep = [deep]
    assert len(canonical_details({"deep": deep})) < 100


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("alice@shield.test", "alice@shield.test"),
        ("a\0b\r\nc", "a\\x00b\\r\\nc"),
        ("\ud800", "\\ud800"),
        ("\u202eevil", "\\u202eevil"),
        ("x" * 1000, "x" * 511 + "…"),
        ("Жанна", "Жанна"),
    ],
)
def test_text_is_printable_and_bounded(given: str, kept: str) -> None:
    assert bounded_text(given) == kept


@given(st.text() | st.text(st.characters(min_codepoint=0x1_0000), min_size=300))
def test_text_fits_into_an_index(text: str) -> None:
    kept = bounded_text(text)
    assert len(kept) <= 512
    assert kept.isprintable()
    assert len(kept.encode()) < 2704


def test_types_without_json_equivalent_are_converted() -> None:
    one = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")
    kept = orjson.loads(canonical_details({"id": one, "n": 2**70, "set": {1}, "nan": float("nan")}))
    assert kept == {"id": str(one), "n": str(2**70), "set": [1], "nan": None}
