"""Runs programs of the target that change nothing."""

from __future__ import annotations

import subprocess

# Seconds for one program.
TIMEOUT = 30


def output_of(*command: str) -> str:
    """Return the output of a read-only program; empty if it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
