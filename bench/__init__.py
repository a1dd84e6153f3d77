"""Benchmarks of the event plane against common alternatives; run by script/bench."""
