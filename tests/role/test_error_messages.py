"""Operators find an error message of the playbooks by its words in docs/operations.md."""

from __future__ import annotations

import re

import pytest

from tests.support.playbook import TOP

SOURCES = [
    *TOP.glob("roles/ag_ui_deployment/tasks/*.yml"),
    *TOP.glob("roles/ag_ui_deployment/vars/main/*.yml"),
    *TOP.glob("roles/ag_ui_deployment/files/host/*/*.py"),
    *TOP.glob("plugins/*/*.py"),
]


def headings() -> list[str]:
    text = (TOP / "docs/operations.md").read_text(encoding="utf-8")
    section = text.partition("## Error messages\n")[2].partition("\n## ")[0]
    return re.findall(r"^### (.+)$", section, re.MULTILINE)


def texts() -> list[str]:
    """The sources with collapsed white space, because messages are folded over several lines."""
    return [re.sub(r"[\"'\s]+", " ", path.read_text(encoding="utf-8")) for path in SOURCES]


@pytest.mark.parametrize("heading", headings())
def test_heading_has_the_words_of_a_message(heading: str) -> None:
    words = [part.strip() for part in re.sub(r"[\"'\s]+", " ", heading).split("…")]
    assert any(all(part in text for part in words) for text in texts())


def test_there_are_headings() -> None:
    assert headings()
