"""Words of plugins/filter/ag_ui_errors.py for a failed command."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter.ag_ui_errors import command_error


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"rc": 2, "stderr": "no\n", "msg": "non-zero return code"}, "no (exit code 2)"),
        ({"rc": 2, "stderr": "", "msg": "not found"}, "not found (exit code 2)"),
        ({"msg": "unreachable"}, "unreachable (exit code unknown)"),
        (
            {"rc": 137, "stderr": "", "msg": ""},
            "it printed nothing (exit code 137: it was killed, most likely because its memory limit is too small)",
        ),
    ],
)
def test_words_are_those_of_the_command(result: dict[str, Any], expected: str) -> None:
    assert command_error(result) == expected
