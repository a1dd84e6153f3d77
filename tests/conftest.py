"""Fixtures that every folder of tests may use."""

from tests.shield.fixtures import shield, shield_rng

__all__ = ["shield", "shield_rng"]
