"""Sets of secrets of plugins/filter/ag_ui_secret_sets.py."""

from __future__ import annotations

from typing import Any

from plugins.filter.ag_ui_secret_sets import differing, one_set, secret_sets

HOSTVARS: dict[str, dict[str, Any]] = {
    "read": {"__ag_ui_own_secrets": {"values": {"jwt_secret": "a", "proxy_key": "b"}}},
    "set": {
        "__ag_ui_own_secrets": {"values": {"jwt_secret": "a", "mfa_key": "c"}},
        "ag_ui_jwt_secret": "d",
        "ag_ui_mfa_key": "",
        # Not to be set by a variable.
        "ag_ui_proxy_key": "e",
    },
    "other": {},
    "unreachable": {},
}
OTHERS: list[dict[str, Any]] = [
    {"item": "other", "values": {"audit_key": "f"}},
    {"item": "unreachable", "unreachable": True},
]


def test_the_inventory_takes_precedence_over_the_files_of_a_host() -> None:
    assert secret_sets(HOSTVARS, HOSTVARS, OTHERS) == {
        "read": {"jwt_secret": "a", "proxy_key": "b"},
        "set": {"jwt_secret": "d", "mfa_key": "c"},
        "other": {"audit_key": "f"},
        "unreachable": {},
    }


def test_the_set_of_a_group_has_the_value_of_the_first_host() -> None:
    sets = {"first": {"jwt_secret": "a"}, "second": {"jwt_secret": "b", "mfa_key": "c"}}
    assert one_set(sets) == {"jwt_secret": "a", "mfa_key": "c"}


def test_differences_name_the_hosts_and_not_the_values() -> None:
    sets = {"first": {"jwt_secret": "value-a"}, "second": {}, "third": {"jwt_secret": "value-b"}}
    [message] = differing(sets)
    assert message == "jwt_secret of third is not that of first"
    assert differing({"first": {"jwt_secret": "a"}, "second": {"jwt_secret": "a"}}) == []
