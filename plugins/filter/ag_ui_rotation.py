"""Check what is to be rotated, and describe what a rotation has done and what remains."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    # State of the rotation of a secret, as in the module_utils ag_ui_rotation.
    Record = Mapping[str, Any]

# Generated secrets by the name that operators give in ag_ui_rotate.
GENERATED = {
    "jwt": "jwt_secret",
    "mfa": "mfa_key",
    "audit": "audit_key",
    "metrics": "metrics_token",
    "proxy": "proxy_key",
}
# Variables for former values of secrets that the inventory can set.
_PREVIOUS = {
    "jwt": "ag_ui_jwt_previous_secrets",
    "mfa": "ag_ui_mfa_previous_keys",
    "audit": "ag_ui_audit_previous_keys",
    "metrics": "ag_ui_metrics_previous_tokens",
}
# Passwords of other servers: the variable, and the one for the former password.
_PASSWORDS = {
    "database": ("ag_ui_database_password", "ag_ui_database_previous_password"),
    "database_owner": ("ag_ui_database_owner_password", "ag_ui_database_owner_previous_password"),
    "redis": ("ag_ui_redis_password", "ag_ui_redis_previous_password"),
}
VARIABLES = (
    *(f"ag_ui_{GENERATED[name]}" for name in _PREVIOUS),
    *(variable for pair in _PASSWORDS.values() for variable in pair),
    *("ag_ui_litellm_api_key", "ag_ui_database_owner", "ag_ui_tls_mode"),
)


def rotation_refusals(selected: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Find what prevents the rotation of the selected secrets.

    Args:
        selected: Names as in `ag_ui_rotate`.
        values: Values of the variables in `VARIABLES`, by name.

    Returns:
        For each secret that cannot be rotated, what to change, without values.
    """
    refusals = []
    for name in selected:
        if name in _PREVIOUS:
            refusals.append(_refuse_given(name, values))
        elif name in _PASSWORDS:
            refusals.append(_refuse_password(name, values))
        elif name == "litellm" and not values["ag_ui_litellm_api_key"]:
            refusals.append(
                "litellm: ag_ui_litellm_api_key is empty. Create a key at the gateway and set it in vault.yml"
            )
        elif name == "tls" and values["ag_ui_tls_mode"] not in {"self_signed", "provided"}:
            refusals.append(
                f"tls: the certificate is renewed by itself with ag_ui_tls_mode {values['ag_ui_tls_mode']}"
            )
    return [refusal for refusal in refusals if refusal]


def _refuse_given(name: str, values: Mapping[str, str]) -> str:
    variable, previous = f"ag_ui_{GENERATED[name]}", _PREVIOUS[name]
    if not values[variable]:
        return ""
    return (
        f"{name}: {variable} is set in the inventory, where the playbook cannot change it. Change it in three "
        f"deployments of site.yml: 1. add the new value to {previous}; 2. set {variable} to the new value and "
        f"{previous} to the old one; 3. remove the old one from {previous} when nothing needs it any more "
        f"(docs/operations.md, Rotate secrets)"
    )


def _refuse_password(name: str, values: Mapping[str, str]) -> str:
    variable, previous = _PASSWORDS[name]
    if name == "database_owner" and not values["ag_ui_database_owner"]:
        return "database_owner: ag_ui_database_owner is empty, so the role of the application owns the tables. Rotate database"
    if values[variable] and values[previous] and values[variable] != values[previous]:
        return ""
    return (
        f"{name}: set {variable} to the new password and {previous} to the one in use (in vault.yml), "
        f"two different ones, and shield_datastores_{variable.removeprefix('ag_ui_')} and "
        f"shield_datastores_{previous.removeprefix('ag_ui_')} likewise if the inventory sets them"
    )


def unconfirmed(records: Mapping[str, Record]) -> list[str]:
    """Find secrets that are in use and whose former value has no end yet."""
    return [
        name
        for name, record in records.items()
        if record["phase"] == "use" and any(one["until"] is None for one in record["accepted"])
    ]


def rotation_report(records: Mapping[str, Record], now: float) -> list[str]:
    """Describe the states of the rotations, without values.

    Args:
        records: States by the name of the secret.
        now: The time in seconds since 1970.

    Returns:
        One line for each secret with a rotation that is not finished.
    """
    names = {secret: name for name, secret in GENERATED.items()}
    lines = []
    for secret, record in sorted(records.items()):
        ends = [one["until"] for one in record["accepted"]]
        name = names.get(secret, secret)
        if not ends:
            continue
        if record["phase"] == "accept":
            lines.append(
                f"{name}: the new value is accepted, and the former one in use. Run the playbook again to go on."
            )
        elif None in ends:
            lines.append(
                f"{name}: not all instances are known to use the new value. Run the playbook again to go on."
            )
        elif max(ends) > now:
            lines.append(
                f"{name}: the new value is in use. The former one is accepted until {_utc(max(ends))}; "
                f"then remove it with -e ag_ui_rotate_finish=true."
            )
        else:
            lines.append(
                f"{name}: the new value is in use. Nothing needs the former one any more: remove it with "
                f"-e ag_ui_rotate_finish=true."
            )
    return lines


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def generated_secrets(selected: Iterable[str]) -> list[str]:
    """Return the generated secrets among the selected names."""
    return [GENERATED[name] for name in selected if name in GENERATED]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by their names in templates."""
        return {
            "ag_ui_generated": generated_secrets,
            "ag_ui_rotation_refusals": rotation_refusals,
            "ag_ui_rotation_report": rotation_report,
            "ag_ui_unconfirmed": unconfirmed,
        }
