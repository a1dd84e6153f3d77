"""The pages that are generated from the code are current."""

from __future__ import annotations

import subprocess
import sys

from tests.scripts.conftest import REPOSITORY


def api_reference(argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, REPOSITORY / "script/api-reference", argument],
        capture_output=True,
        text=True,
        check=False,
    )


def test_generated_pages_are_current() -> None:
    done = api_reference("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_arguments_are_refused() -> None:
    done = api_reference("nope")
    assert done.returncode == 2
    assert "script/api-reference" in done.stderr
