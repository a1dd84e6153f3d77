"""Texts of the health report."""

import pytest

from src.services.operations.health_service import _format_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (9000.0, "2 h")],
)
def test_durations_are_rounded_to_a_unit(seconds: float, words: str) -> None:
    assert _format_duration(seconds) == words
