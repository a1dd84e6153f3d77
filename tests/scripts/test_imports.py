"""Test modules import nothing from one another: what they share stands in a module of its own."""

from __future__ import annotations

import ast
from pathlib import Path

TOP = Path(__file__).parents[2]
FOLDERS = (TOP / "tests", TOP / "roles" / "ag_ui_deployment" / "files" / "backend" / "tests")


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports, and of what it imports from them."""
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
