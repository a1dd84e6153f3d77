"""The states of rotations of secrets: their steps, their merge over hosts, and what is refused and reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from plugins.filter.ag_ui_rotation import (
    VARIABLES,
    generated_secrets,
    rotation_refusals,
    rotation_report,
    unconfirmed,
)
from plugins.filter.ag_ui_secret_sets import rotation, secret_sets
from tests.support.ansible_module import import_util, run_module
from tests.support.role_templates import ROLE
from tests.support.role_variables import role_variables

if TYPE_CHECKING:
    from pathlib import Path

steps = import_util("ag_ui_rotation")
NOW = 1_000_000
HOUR = 3600


def record(serial: int, phase: str, value: str, **accepted: int | None) -> dict[str, Any]:
    """Return a state; the keywords are the accepted values with their ends."""
    values = [{"value": name, "until": until} for name, until in accepted.items()]
    return {"serial": serial, "phase": phase, "value": value, "accepted": values}


def test_a_rotation_accepts_before_it_uses_and_expires_former_values() -> None:
    begun = steps.begin(None, "old", "new", NOW, again=False)
    assert begun == record(1, "accept", "old", new=None)
    used = steps.use(begun)
    assert used == record(2, "use", "new", old=None)
    # Before all instances use the new value, no time is set and nothing is removed.
    assert steps.finish(used, NOW + 100 * HOUR) is used
    confirmed = steps.confirm(used, NOW + HOUR)
    assert confirmed == record(3, "use", "new", old=NOW + HOUR)
    assert steps.finish(confirmed, NOW + HOUR - 1) is confirmed
    assert steps.finish(confirmed, NOW + HOUR) == record(4, "use", "new")
    # After a leak.
    assert steps.finish(confirmed, NOW, early=True) == record(4, "use", "new")
    assert steps.finish(used, NOW, early=True) is used


def test_a_step_that_was_taken_changes_nothing() -> None:
    begun = record(1, "accept", "old", new=None)
    assert steps.begin(begun, "old", "newer", NOW, again=True) is begun
    assert steps.confirm(begun, NOW) is begun
    overlapping = record(3, "use", "new", old=NOW + HOUR)
    assert steps.begin(overlapping, "new", "newer", NOW, again=False) is overlapping
    assert steps.use(overlapping) is overlapping
    assert steps.confirm(overlapping, NOW + 9 * HOUR) is overlapping


def test_another_rotation_begins_after_the_overlap_or_on_request() -> None:
    overlapping = record(3, "use", "b", a=NOW + HOUR)
    again = steps.begin(overlapping, "b", "c", NOW, again=True)
    assert again == record(4, "accept", "b", c=None, a=NOW + HOUR)
    assert steps.use(again) == record(5, "use", "c", b=None, a=NOW + HOUR)
    later = steps.begin(overlapping, "b", "c", NOW + HOUR, again=False)
    assert later == record(5, "accept", "b", c=None)


def step(folder: Path, name: str, state: dict[str, Any], *secrets: str) -> dict[str, Any]:
    options = {name: {"bytes": 48, "lifetime": HOUR} for name in secrets}
    values = {name: f"old-{name}" for name in secrets}
    arguments = {"directory": str(folder), "step": name, "secrets": options}
    done = run_module(
        "ag_ui_rotation", arguments | {"rotation": state, "values": values}, folder, {}
    )
    assert not done.get("failed"), done
    stored = folder / "rotation.json"
    assert json.loads(stored.read_text()) == done["rotation"]
    assert stored.stat().st_mode & 0o777 == 0o600
    return done


def store(folder: Path, names: dict[str, int], **options: Any) -> dict[str, Any]:
    arguments = {"directory": str(folder), "names": names, **options}
    done = run_module("ag_ui_secrets", arguments, folder.parent, {})
    assert not done.get("failed"), done
    return done


def test_steps_are_stored_and_the_files_follow_them(tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    first.mkdir()
    begun = step(first, "begin", {}, "jwt_secret", "mfa_key")
    assert begun["stepped"] == ["jwt_secret", "mfa_key"]
    state = begun["rotation"]
    new = state["jwt_secret"]["accepted"][0]["value"]
    assert len(new) == 64
    # The other host gets the state, and the value in use.
    names = {"jwt_secret": 48, "proxy_key": 36}
    done = store(other, names, rotation=state, initial={"proxy_key": "p" * 48})
    assert done["changed"]
    assert done["values"] == {"jwt_secret": "old-jwt_secret", "proxy_key": "p" * 48}
    assert done["accepted"] == {"jwt_secret": [new]}
    assert (other / "jwt_secret").read_text() == "old-jwt_secret\n"
    assert not store(other, names, rotation=state)["changed"]
    used = step(first, "use", state, "jwt_secret")
    done = store(other, names, rotation=used["rotation"])
    assert (other / "jwt_secret").read_text() == f"{new}\n"
    assert done["accepted"] == {"jwt_secret": ["old-jwt_secret"]}
    # Without states the stored ones are read, and nothing changes.
    read = store(other, names)
    assert (read["changed"], read["rotation"]) == (False, used["rotation"])
    assert read["values"]["jwt_secret"] == new


def results(**hosts: tuple[dict[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        host: {"__ag_ui_own_secrets": {"values": values, "rotation": state}}
        for host, (values, state) in hosts.items()
    }


def test_the_latest_state_of_the_group_is_valid_for_all_hosts() -> None:
    latest = {"jwt_secret": record(2, "use", "new", old=None)}
    hostvars = results(
        ahead=({"jwt_secret": "new"}, latest),
        behind=({"jwt_secret": "old"}, {"jwt_secret": record(1, "accept", "old", new=None)}),
        # Written before the state of the rotation.
        without_state=({"jwt_secret": "old"}, {}),
        added=({}, {}),
        foreign=({"jwt_secret": "foreign"}, {}),
    )
    assert rotation(hostvars, hostvars, []) == latest
    assert secret_sets(hostvars, hostvars, []) == {
        "ahead": {"jwt_secret": "new"},
        "behind": {"jwt_secret": "new"},
        "without_state": {"jwt_secret": "new"},
        "added": {},
        "foreign": {"jwt_secret": "foreign"},
    }


def test_secret_of_the_inventory_takes_precedence_over_a_rotation() -> None:
    hostvars = results(one=({"jwt_secret": "a"}, {"jwt_secret": record(2, "use", "a")}))
    hostvars["one"]["ag_ui_jwt_secret"] = "given"
    assert secret_sets(hostvars, hostvars, []) == {"one": {"jwt_secret": "given"}}


GIVEN = dict.fromkeys(VARIABLES, "")
PASSWORDS = {
    "ag_ui_database_password": "new-of-database",
    "ag_ui_database_previous_password": "former-of-database",
    "ag_ui_redis_password": "same",
    "ag_ui_redis_previous_password": "same",
}


@pytest.mark.parametrize(
    ("selected", "values", "words"),
    [
        ("jwt", {"ag_ui_jwt_secret": "x"}, "ag_ui_jwt_previous_secrets to the old one"),
        ("mfa", {"ag_ui_mfa_key": "x"}, "1. add the new value to ag_ui_mfa_previous_keys"),
        ("audit", {"ag_ui_audit_key": "x"}, "ag_ui_audit_key is set in the inventory"),
        ("metrics", {"ag_ui_metrics_token": "x"}, "ag_ui_metrics_previous_tokens"),
        ("database", {"ag_ui_database_password": "x"}, "ag_ui_database_previous_password to the"),
        ("database", {}, "shield_datastores_database_previous_password likewise"),
        ("database_owner", {}, "Rotate database"),
        ("database_owner", {"ag_ui_database_owner": "o"}, "ag_ui_database_owner_previous_password"),
        ("redis", PASSWORDS, "two different ones"),
        ("litellm", {}, "ag_ui_litellm_api_key is empty"),
        ("tls", {"ag_ui_tls_mode": "acme"}, "renewed by itself"),
    ],
)
def test_what_cannot_be_rotated_is_named_with_the_remedy(
    selected: str, values: dict[str, str], words: str
) -> None:
    [refusal] = rotation_refusals([selected], GIVEN | values)
    assert refusal.startswith(f"{selected}: ")
    assert words in refusal
    assert "new-of-database" not in refusal


def test_what_can_be_rotated_is_not_refused() -> None:
    given = GIVEN | PASSWORDS | {"ag_ui_tls_mode": "self_signed", "ag_ui_litellm_api_key": "x"}
    selected = ["jwt", "mfa", "audit", "metrics", "proxy", "database", "litellm", "tls"]
    assert rotation_refusals(selected, given) == []
    assert generated_secrets(selected) == [
        "jwt_secret",
        "mfa_key",
        "audit_key",
        "metrics_token",
        "proxy_key",
    ]


def test_the_variables_of_the_role_are_those_of_the_checks() -> None:
    assert set(role_variables(ROLE)["__ag_ui_rotate_variables"]) == set(VARIABLES)


def test_report_says_what_remains_and_no_value() -> None:
    records = {
        "jwt_secret": record(3, "use", "secret-a", **{"secret-b": NOW + HOUR}),
        "mfa_key": record(1, "accept", "secret-c", **{"secret-d": None}),
        "audit_key": record(3, "use", "secret-e", **{"secret-f": NOW}),
        "proxy_key": record(2, "use", "secret-g", **{"secret-h": None}),
        "metrics_token": record(4, "use", "secret-i"),
    }
    audit, jwt, mfa, proxy = rotation_report(records, NOW)
    assert "audit: the new value is in use. Nothing needs the former one any more" in audit
    assert "accepted until 1970-01-12 14:46 UTC; then remove it with -e ag_ui_rotate_fin" in jwt
    assert mfa.startswith("mfa: the new value is accepted, and the former one in use. Run the")
    assert proxy.startswith("proxy: not all instances are known to use the new value.")
    assert "secret-" not in audit + jwt + mfa + proxy
    assert unconfirmed(records) == ["proxy_key"]
