"""The functions of script/lib.sh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.scripts.conftest import Checkout


@pytest.mark.parametrize(
    "text",
    ["plain", "", "two words", "it's", "''", '"$HOME" `id` $(id)', "a\\b", "new\nline", "*;&|<>#~"],
)
def test_quoted_survives_eval(checkout: Checkout, text: str) -> None:
    done = checkout.shell('printf %s "value=$(quoted "$1")"', text)
    again = checkout.run("sh", "-c", 'eval "$1"; printf %s "$value"', "sh", done.stdout)
    assert again.stdout == text


def test_a_step_ends_at_its_first_failure_and_shows_its_output(checkout: Checkout) -> None:
    done = checkout.shell(
        "work() { echo before; false; echo after; }; run_step 'a step' work; echo next"
    )
    assert done.returncode == 1
    assert "a step" in done.stdout
    assert "next" not in done.stdout
    assert "before" in done.stderr
    assert "after\n" not in done.stderr
    assert ".cache/logs/a-step.log" in done.stderr


def test_a_step_that_is_done_is_not_done_again(checkout: Checkout) -> None:
    done = checkout.shell("ensure 'a step' true false; ensure 'another' false true")
    assert done.returncode == 0
    assert "there" in done.stdout.splitlines()[0]
    assert " s" in done.stdout.splitlines()[1]


def test_within_fails_after_the_given_time(checkout: Checkout) -> None:
    assert checkout.shell("within 1 false").returncode == 1
    assert checkout.shell("within 1 true").returncode == 0


@pytest.mark.parametrize(
    ("seconds", "code", "verdict"), [("4.9", 0, "ok"), ("5.0", 0, "ok"), ("5.1", 1, "TOO SLOW")]
)
def test_a_figure_is_compared_with_its_limit(
    checkout: Checkout, seconds: str, code: int, verdict: str
) -> None:
    done = checkout.shell(
        'record_figure .cache/f restart "$1"; print_figure .cache/f restart 5 "restart"', seconds
    )
    assert done.returncode == code
    assert done.stdout.split() == ["restart", seconds, "s", "limit", "5", "s", *verdict.split()]


def test_a_missing_figure_is_a_failure(checkout: Checkout) -> None:
    done = checkout.shell('print_figure .cache/f restart 5 "restart"')
    assert done.returncode == 1
    assert "none" in done.stdout


@pytest.mark.parametrize(
    ("environment", "index"),
    [
        ([], "from-file"),
        (["PIP_INDEX_URL=from-pip"], "from-pip"),
        (["PIP_INDEX_URL=from-pip", "AG_UI_BUILD_INDEX_URL=from-site"], "from-site"),
    ],
)
def test_the_index_of_the_site_is_that_of_uv(
    checkout: Checkout, environment: list[str], index: str
) -> None:
    folder = checkout.path / ".config" / "pip"
    folder.mkdir(parents=True)
    (folder / "pip.conf").write_text("[global]\nindex-url = from-file\n")
    text = 'source script/lib.sh; echo "$AG_UI_BUILD_INDEX_URL $UV_DEFAULT_INDEX"'
    done = checkout.run("env", *environment, "bash", "-c", text)
    assert done.stdout.split() == [index, index], done.stderr
