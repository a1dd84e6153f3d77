"""Run read-only programs on the target."""

from __future__ import annotations

import subprocess

TIMEOUT_SECONDS = 30


def output_of(*command: str, text: str = "") -> str:
    """Return the output of a read-only program; empty if it fails, hangs or is not installed.

    Args:
        command: The program and its arguments.
        text: What it reads from standard input.
    """
    try:
        completed = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout if completed.returncode == 0 else ""
