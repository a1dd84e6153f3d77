"""Fixtures that every folder of tests may use."""

from tests.shield.fixtures import shield, shield_rng, shield_seed

__all__ = ["shield", "shield_rng", "shield_seed"]
