"""Metadata of the project."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BACKEND = TOP / "roles/ag_ui_deployment/files/backend"


def backend_version() -> str:
    """Return the version from its single source."""
    text = (BACKEND / "src/__init__.py").read_text()
    [found] = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', text, re.MULTILINE)
    return str(found)
