"""The pages in docs/ and the READMEs."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from tests.support.playbook import TOP

if TYPE_CHECKING:
    from pathlib import Path

OPERATIONS = TOP / "docs/operations.md"


def prose(page: Path) -> str:
    """Return the page's text without code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub generates for the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings)


def section(heading: str, page: Path = OPERATIONS) -> str:
    """Return the text below a heading, up to the next one of any level below the first."""
    return page.read_text().partition(f"# {heading}\n")[2].partition("\n##")[0]
