"""Test modules do not import one another; shared code is in separate modules."""

from __future__ import annotations

import ast
from pathlib import Path

TOP = Path(__file__).parents[2]
FOLDERS = (TOP / "tests", TOP / "roles" / "ag_ui_deployment" / "files" / "backend" / "tests")


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, and the names it imports from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_no_test_module_imports_another() -> None:
    modules = {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        for folder in FOLDERS
        for path in folder.rglob("test_*.py")
    }
    assert modules
    borrowed = {
        str(path.relative_to(TOP)): found
        for folder in FOLDERS
        for path in folder.rglob("*.py")
        if (found := sorted(imported(path) & modules))
    }
    assert borrowed == {}
