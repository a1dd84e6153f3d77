"""Operators find an error message of the playbooks by its words in docs/operations.md."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = [
    *TOP.glob("roles/*/tasks/*.yml"),
    *TOP.glob("roles/ag_ui_deployment/vars/main/*.yml"),
    *TOP.glob("roles/ag_ui_deployment/files/host/*/*.py"),
    *TOP.glob("plugins/*/*.py"),
]


def headings() -> list[str]:
    text = (TOP / "docs/operations.md").read_text(encoding="utf-8")
    section = text.partition("## Error messages\n")[2].partition("\n## ")[0]
    return re.findall(r"^### (.+)$", section, re.MULTILINE)


def collapsed(text: str) -> str:
    """Collapse quotes and white space, because messages are folded over several lines."""
    return re.sub(r"[\"'\s]+", " ", text)


def has_words(text: str, heading: str) -> bool:
    return all(part.strip() in text for part in collapsed(heading).split("…"))


def failures(node: Any) -> Iterator[dict[str, str]]:
    """Yield the arguments of the tasks that end a play."""
    if isinstance(node, list):
        for item in node:
            yield from failures(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name in {"ansible.builtin.assert", "ansible.builtin.fail"}:
                yield value
            else:
                yield from failures(value)


def messages() -> list[str]:
    tasks = [*TOP.glob("roles/*/tasks/*.yml"), *TOP.glob("playbooks/*.yml"), TOP / "site.yml"]
    found = [
        collapsed(task.get("fail_msg") or task["msg"])
        for path in sorted(tasks)
        for task in failures(yaml.safe_load(path.read_text(encoding="utf-8")))
    ]
    # What the variable contains.
    return [text.replace("{{ __ag_ui_refused }}", "nothing was switched") for text in found]


@pytest.mark.parametrize("heading", headings())
def test_heading_has_the_words_of_a_message(heading: str) -> None:
    sources = (collapsed(path.read_text(encoding="utf-8")) for path in SOURCES)
    assert any(has_words(text, heading) for text in sources)


def test_each_message_has_a_heading() -> None:
    found, documented = messages(), headings()
    assert found
    assert [text for text in found if not any(has_words(text, one) for one in documented)] == []
