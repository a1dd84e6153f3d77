"""Compare the keys of a backup with those of the inventory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def missing_keys(
    keys: Iterable[Mapping[str, str]],
    manifest: Mapping[str, Any],
    given: Mapping[str, str],
    environment: Mapping[str, Any],
) -> list[str]:
    """Return the keys of a backup that the restored site would not have.

    Args:
        keys: For each key the name of its `setting`, of its `secret`, and of the setting with `previous` keys.
        manifest: The manifest of the backup, with the SHA-256 of each key.
        given: The values in the inventory by the name of the secret; empty ones are generated.
        environment: Further settings of the backend in the inventory.

    Returns:
        A message for each missing key.
    """
    problems = []
    for key in keys:
        digest = manifest["keys"].get(key["setting"])
        secret = key["secret"]
        if digest is None:
            continue
        value = given[secret]
        previous = str(environment.get(key["previous"], "")).split(",")
        accepted = {hashlib.sha256(it.encode()).hexdigest() for it in (value, *previous) if it}
        is_restored = f"configuration/secrets/{secret}" in manifest["files"] and not value
        if digest not in accepted and not is_restored:
            problems.append(
                f"ag_ui_{secret} {'differs from' if value else 'is not set, and the role had not generated'} "
                f"the key of the backup ({key['setting']} in its backend.env)"
            )
    return problems


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_missing_keys": missing_keys}
