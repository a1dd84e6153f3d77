"""The variables of a role, unrendered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS: Final[dict[str, Any]] = yaml.safe_load(
    (TOP / "roles/ag_ui_deployment/defaults/main.yml").read_text()
)
"""The defaults of the role ag_ui_deployment."""


def variable_files(role: Path) -> list[Path]:
    """Return the files of the folder vars, all of which Ansible loads."""
    return sorted((role / "vars").rglob("*.yml"))


def role_variables(role: Path) -> dict[str, Any]:
    """Return the internal variables of a role."""
    variables: dict[str, Any] = {}
    for path in variable_files(role):
        variables |= yaml.safe_load(path.read_text())
    return variables
