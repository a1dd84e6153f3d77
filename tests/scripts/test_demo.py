"""script/demo when no demo exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.scripts.conftest import Checkout


@pytest.mark.parametrize("command", ["env", "status"])
def test_commands_without_a_demo_name_the_remedy(checkout: Checkout, command: str) -> None:
    done = checkout.run("script/demo", command)
    assert done.returncode == 1
    assert "Make one with: script/demo" in done.stderr
    assert not done.stdout


def test_env_prints_the_file_of_the_last_run(checkout: Checkout) -> None:
    (checkout.path / ".demo").mkdir()
    (checkout.path / ".demo" / "env").write_text("AG_UI_URL='https://a'\nexport AG_UI_URL\n")
    done = checkout.run("sh", "-c", 'eval "$(script/demo env)" && sh -c \'echo "$AG_UI_URL"\'')
    assert done.stdout == "https://a\n"


def test_down_without_a_demo_succeeds(checkout: Checkout) -> None:
    checkout.stub("docker", "exit 1")
    done = checkout.run("script/demo", "down")
    assert done.returncode == 0


def test_down_keeps_the_state_while_the_engine_does_not_answer(checkout: Checkout) -> None:
    checkout.stub("docker", "exit 1")
    (checkout.path / ".demo").mkdir()
    done = checkout.run("script/demo", "down")
    assert done.returncode == 1
    assert "engine does not answer" in done.stderr
    assert (checkout.path / ".demo").exists()
