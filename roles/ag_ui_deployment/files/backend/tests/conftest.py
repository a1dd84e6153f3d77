"""Fixtures and profiles of all backend tests."""

import os

import pytest
import structlog
from hypothesis import HealthCheck, settings

from src.config import Settings

# The same examples in every run, so that a failure is there for whoever looks next;
# HYPOTHESIS_PROFILE=search looks for new ones.
_COMMON = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _COMMON, max_examples=60, derandomize=True)
settings.register_profile("search", _COMMON, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Tracebacks for a terminal, structlog's default, take longer than most tests.
structlog.configure(processors=[structlog.processors.KeyValueRenderer()])


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the environment of whoever runs the tests must not decide them."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
