"""The pages that are generated from the code are up to date."""

from __future__ import annotations

import subprocess
import sys

from tests.scripts.conftest import REPOSITORY


def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "script/api-reference", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_arguments_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "script/api-reference", "nope"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "script/api-reference" in done.stderr
