"""Fixtures for a site that is uninstalled by its tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def healthy() -> None:
    """Override the wait for a healthy service: the last tests have none."""
