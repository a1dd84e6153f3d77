"""Tests of the whole bundle; the backend's own tests are next to its source."""
