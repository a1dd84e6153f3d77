"""A script exits with its usage and status 2 on wrong arguments, before it changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.scripts.conftest import Checkout

SCRIPTS = ("bootstrap", "check", "demo", "pin", "release", "test")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], [""], ["up", "nonsense"]])
def test_invalid_argument_exits_with_usage(
    checkout: Checkout, script: str, arguments: list[str]
) -> None:
    done = checkout.run(f"script/{script}", *arguments)
    assert done.returncode == 2
    assert f"  script/{script} " in done.stderr
    assert not done.stdout
    assert not (checkout.path / ".cache").exists()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_prints_usage(checkout: Checkout, script: str, argument: str) -> None:
    done = checkout.run(f"script/{script}", argument)
    assert done.returncode == 0
    assert f"  script/{script} " in done.stdout
    assert not done.stderr
