"""The README is short, and the links of all pages have a target."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.scripts.conftest import REPOSITORY
from tests.support.pages import anchors, prose

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted(
    [
        REPOSITORY / "README.md",
        *REPOSITORY.glob("docs/*.md"),
        *REPOSITORY.glob("roles/*/README.md"),
        *REPOSITORY.glob("roles/*/files/*/README.md"),
    ]
)
# In lines.
README_MAX = 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_refer_to_existing_files_and_headings(page: Path) -> None:
    links = [
        link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not link.startswith("http")
    ]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_named_modules_exist(page: Path) -> None:
    backend = REPOSITORY / "roles/ag_ui_deployment/files/backend"
    for name in re.findall(r"`((?:console/)?src/[\w/-]+(?:\.\w+)?/?)`", prose(page)):
        assert (backend / name).exists(), name


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= README_MAX
