"""Fixtures for all test folders."""

from tests.shield.fixtures import shield, shield_rng, shield_seed

__all__ = ["shield", "shield_rng", "shield_seed"]
