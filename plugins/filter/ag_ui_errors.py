"""Describe commands that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KILLED = 137


def command_error(result: Mapping[str, Any]) -> str:
    """Return the words of a failed command, or of Ansible if it printed none, with the exit code.

    Args:
        result: The result of the module `ansible.builtin.command`.
    """
    words = str(result.get("stderr") or result.get("msg") or "it printed nothing").strip()
    if result.get("rc") == KILLED:
        return f"{words} (exit code {KILLED}: it was killed, most likely because its memory limit is too small)"
    return f"{words} (exit code {result.get('rc', 'unknown')})"


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_command_error": command_error}
