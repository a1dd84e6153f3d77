"""Fixtures and Hypothesis profiles of all backend tests."""

import os

import pytest
import structlog
from hypothesis import HealthCheck, settings

from src.config import Settings

# Every run uses the same examples, so that failures are reproducible; HYPOTHESIS_PROFILE=search
# generates new ones.
_COMMON = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _COMMON, max_examples=60, derandomize=True)
settings.register_profile("search", _COMMON, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Structlog's default, tracebacks for a terminal, takes longer than most tests.
structlog.configure(processors=[structlog.processors.KeyValueRenderer()])


@pytest.fixture(autouse=True)
def _without_environment_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings from the environment, so that they do not affect the tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
