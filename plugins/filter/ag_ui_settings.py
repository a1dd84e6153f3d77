"""The settings of the backend, and names that are none of them."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def settings_in(source: str) -> list[str]:
    """Parse the names of the fields of class `Settings` from the text of the backend's config.py."""
    return [
        field.target.id
        for part in ast.parse(source).body
        if isinstance(part, ast.ClassDef) and part.name == "Settings"
        for field in part.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]


def unknown_settings(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return the names that are no settings, each with the most similar setting.

    Args:
        names: Keys of `ag_ui_environment`.
        known: The settings of the backend.

    Returns:
        The unknown names with a suggestion, such as `REDIS_ULR (did you mean REDIS_URL?)`.
    """
    found = []
    for name in map(str, names):
        if name not in known:
            nearest = get_close_matches(name.upper(), known, n=1, cutoff=0.0)
            found.append(f"{name} (did you mean {nearest[0]}?)" if nearest else name)
    return found


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_settings_in": settings_in, "ag_ui_unknown_settings": unknown_settings}
