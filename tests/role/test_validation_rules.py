"""Rules of plugins/filter/ag_ui_validation.py for the variables of the role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from plugins.filter.ag_ui_validation import invalid
from tests.support.role_templates import ROLE
from tests.support.role_variables import role_variables

if TYPE_CHECKING:
    from pathlib import Path

    from plugins.filter.ag_ui_validation import Rule

NETWORKS: Rule = {"items": "network", "format": "networks"}
ORIGINS: Rule = {"items": "origin", "format": "origins"}
ENDPOINTS: Rule = {"items": "endpoint", "format": "addresses"}


def message(value: Any, rule: Rule) -> str:
    """Return the message about a variable; empty if it obeys its rule."""
    return " ".join(invalid({"ag_ui_x": value}, {"ag_ui_x": rule}, "dev"))


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", {"min_length": 8}),
        ("12345678", {"min_length": 8, "required": True}),
        ("dollar$and{brace}", {"min_length": 8}),
        ("abc", {"pattern": "^[a-c]+$", "format": "letters"}),
        (1, {"min": 1, "max": 2}),
        ("2", {"min": 1, "max": 2}),
        ([], NETWORKS),
        (["192.0.2.1", "10.0.0.0/8", "2001:db8::/32"], NETWORKS),
        (["https://a.example", "http://[::1]:3001"], ORIGINS),
        (["hx-data-1:26379", "192.0.2.1:1", "[2001:db8::1]:65535"], ENDPOINTS),
        ("", {"read_if": True}),
        (__file__, {"read_if": True}),
        ("/nonexistent", {"read_if": False}),
    ],
)
def test_a_valid_value_has_no_message(value: Any, rule: Rule) -> None:
    assert message(value, rule) == ""


@pytest.mark.parametrize(
    ("value", "rule", "expected"),
    [
        ("", {"min_length": 8, "required": True}, "ag_ui_x is missing: it must have at least 8"),
        ("1234567", {"min_length": 8}, "ag_ui_x does not fit, with its 7 characters"),
        ("with\na line", {"min_length": 8}, "neither control characters nor a dollar"),
        ("with ${a} variable", {"min_length": 8}, "does not fit"),
        ("", {"pattern": ".", "format": "a name"}, "ag_ui_x is missing: it must be a name"),
        ("1", {"pattern": "^[a-z]$", "format": "a name"}, 'ag_ui_x is "1": it must be a name'),
        ("0", {"min": 1, "max": 2}, "ag_ui_x is 0: it must lie between 1 and 2"),
        (3, {"min": 1, "max": 2}, "ag_ui_x is 3: it must lie between 1 and 2"),
        ("192.0.2.1", NETWORKS, 'ag_ui_x has "192.0.2.1": it must be a list of networks'),
        (["10.0.0.1/8", "192.0.2.1", ""], NETWORKS, 'ag_ui_x has "10.0.0.1/8", ""'),
        (["https://a.example/", "*"], ORIGINS, 'ag_ui_x has "https://a.example/", "*"'),
        (["a", "a:0", "a:65536", "::1:1"], ENDPOINTS, 'has "a", "a:0", "a:65536", "::1:1": it'),
        ("/nonexistent", {"read_if": True}, "there is no file /nonexistent on the controller"),
    ],
)
def test_a_wrong_value_has_a_message(value: Any, rule: Rule, expected: str) -> None:
    assert expected in message(value, rule)


def test_a_message_names_the_file_to_change_and_no_secret() -> None:
    rules: dict[str, Rule] = {
        "ag_ui_key": {"min_length": 20},
        "ag_ui_name": {"pattern": "^a$", "format": "a"},
    }
    secret, name = invalid({"ag_ui_key": "hidden-value", "ag_ui_name": "b"}, rules, "dev")
    assert "group_vars/dev/vault.yml" in secret
    assert "hidden-value" not in secret
    assert "group_vars/dev/vars.yml" in name


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert f"there is no file {tmp_path}" in message(str(tmp_path), {"read_if": True})


def test_every_rule_of_the_role_applies_to_a_variable_that_it_has() -> None:
    variables = role_variables(ROLE)["__ag_ui_rules"]
    defaults = (ROLE / "defaults/main.yml").read_text()
    assert [name for name in variables if f"\n{name}:" not in defaults] == []
    # Each rule is of exactly one kind.
    kinds = {"min_length", "pattern", "items", "min", "read_if"}
    assert [name for name, rule in variables.items() if len(kinds & rule.keys()) != 1] == []
