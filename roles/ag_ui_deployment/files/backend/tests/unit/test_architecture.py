"""The page on the architecture names every module, where it stands, and no other."""

import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PAGE = Path(__file__).parents[6] / "docs" / "architecture.md"
FOLDERS = sorted({path.parent for path in SRC.rglob("*.py")})


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+\.py)`", cell)


def named(folder: str) -> list[str]:
    """The modules that the tables of the page have for a folder of the sources."""
    found: list[str] = []
    table = ""
    for line in PAGE.read_text().splitlines():
        first, *others = line.strip("|").split(" | ")
        if not line.startswith("|"):
            table = ""
        elif heading := re.fullmatch(r" file in `(\S+)`", first):
            table = heading[1]
        elif table == folder:
            found += names_in(first)
        elif first.strip() == f"`{folder}`":
            found += names_in(others[-1])
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_module_is_named_once(folder: Path) -> None:
    modules = sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py")
    assert modules
    assert sorted(named(f"{folder.relative_to(SRC.parent)}/")) == modules
