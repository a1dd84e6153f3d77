"""Measured figures: printed at the end of the run, and written to files if a folder is set."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

RECORDS_VARIABLE = "AG_UI_SCENARIO_RECORDS"


@dataclass(slots=True)
class Figures:
    """The measurements of the tests."""

    lines: list[str] = field(default_factory=list)

    def record(self, name: str, value: float, unit: str, remark: str = "") -> None:
        """Record a figure; `name` is also its file name."""
        words = name.replace("_", " ")
        self.lines.append(f"{words}: {value:.1f} {unit}{f' ({remark})' if remark else ''}")
        folder = os.environ.get(RECORDS_VARIABLE)
        if folder and Path(folder).is_dir():
            (Path(folder) / name).write_text(f"{value:.1f}\n")
