"""The internal variables of a role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from pathlib import Path


def variable_files(role: Path) -> list[Path]:
    """Return the files of the folder vars, all of which Ansible loads."""
    return sorted((role / "vars").rglob("*.yml"))


def role_variables(role: Path) -> dict[str, Any]:
    """Return the variables of all files, unrendered."""
    variables: dict[str, Any] = {}
    for path in variable_files(role):
        variables |= yaml.safe_load(path.read_text())
    return variables
