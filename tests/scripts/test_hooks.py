"""CI jobs and pre-commit hooks run all parts of the scripts, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.scripts.conftest import REPOSITORY


def loaded(path: str) -> Any:
    return yaml.safe_load((REPOSITORY / path).read_text())


def words(script: str, pattern: str) -> list[str]:
    [found] = re.findall(pattern, (REPOSITORY / "script" / script).read_text(), re.MULTILINE)
    return str(found).split()


def test_each_part_of_script_test_is_a_ci_job() -> None:
    fixed = words("test", r"^known=\((.+)\)$")
    scenarios = [path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml")]
    job = loaded(".github/workflows/ci.yml")["jobs"]["test"]
    assert sorted(job["strategy"]["matrix"]["part"]) == sorted([*fixed, *scenarios])
    assert "script/test ${{ matrix.part }}" in [step.get("run") for step in job["steps"]]


def test_screenshots_of_the_browser_are_kept() -> None:
    job = loaded(".github/workflows/ci.yml")["jobs"]["test"]
    [step] = [
        step for step in job["steps"] if "screenshots" in step.get("with", {}).get("path", "")
    ]
    assert "always()" in step["if"]
    # Where the tests put them.
    folder_of = "roles/ag_ui_deployment/files/backend/tests/support/console.py"
    assert step["with"]["path"].rstrip("/") in (REPOSITORY / folder_of).read_text()


def test_each_part_of_script_check_is_a_hook() -> None:
    parts = words("check", r"^parts=\((.+)\)$")
    [repository] = loaded(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert sorted(hooks) == sorted(parts)
    assert {name: hook["entry"] for name, hook in hooks.items()} == {
        name: f"script/check {name}" for name in parts
    }
