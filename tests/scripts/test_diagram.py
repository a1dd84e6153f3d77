"""The diagram of the README matches its source."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.scripts.conftest import REPOSITORY, Checkout

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ("docs/overview.dot", "docs/overview.svg")


@pytest.fixture
def with_picture(checkout: Checkout) -> Checkout:
    (checkout.path / "docs").mkdir()
    for name in DOCS:
        shutil.copy(REPOSITORY / name, checkout.path / name)
    return checkout


def test_diagram_is_current(with_picture: Checkout) -> None:
    done = with_picture.run("script/diagram", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("changed", DOCS)
def test_changed_source_or_svg_is_reported_as_not_current(
    with_picture: Checkout, changed: str
) -> None:
    path = with_picture.path / changed
    path.write_text(path.read_text().replace("browsers", "browser", 1))
    done = with_picture.run("script/diagram", "--check")
    assert done.returncode == 1
    assert "run script/diagram" in done.stdout


def test_rendering_writes_the_output_of_graphviz(with_picture: Checkout) -> None:
    with_picture.stub("dot", "printf '<svg>\\n</svg>\\n'")
    assert with_picture.run("script/diagram").returncode == 0
    assert (with_picture.path / DOCS[1]).read_text().startswith("<svg>\n</svg>\n")
    assert with_picture.run("script/diagram", "--check").returncode == 0


def test_missing_graphviz_is_reported_with_the_package(
    with_picture: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = shutil.which("python3")
    assert python
    monkeypatch.setenv("PATH", str(tmp_path))
    done = with_picture.run(python, "script/diagram")
    assert done.returncode == 1
    assert "apt-get install graphviz" in done.stderr


def test_wrong_arguments_are_refused(with_picture: Checkout) -> None:
    done = with_picture.run("script/diagram", "nope")
    assert done.returncode == 2
    assert "script/diagram" in done.stderr
