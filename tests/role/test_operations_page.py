"""The alarms in docs/operations.md have every event of the log and the metrics that exist."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tests.support.playbook import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = sorted(TOP.glob("roles/ag_ui_deployment/files/backend/src/**/*.py"))
BACKUP_METRICS = TOP / "roles/ag_ui_deployment/files/host/ag_ui_backup/status.py"
SEVERE = {"warning", "error", "exception", "critical"}


def section(heading: str) -> str:
    text = (TOP / "docs/operations.md").read_text(encoding="utf-8")
    return text.partition(f"# {heading}\n")[2].partition("\n##")[0]


def severe_events() -> Iterator[str]:
    """Yield the events that the backend logs as a warning or an error."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr=level), args=[ast.Constant(value=str(event)), *_]
                ) if level in SEVERE:
                    yield event
                case ast.Assign(
                    targets=[ast.Name(id="outage_event" | "failure_event")],
                    value=ast.Constant(value=str(event)),
                ):
                    yield event


def test_every_warning_and_error_of_the_log_has_a_remedy() -> None:
    rows = re.findall(r"^\| (`.+?`.*?) \|", section("Log events"), re.MULTILINE)
    documented = {event for row in rows for event in re.findall(r"`([a-z]+_[a-z_]+)`", row)}
    assert documented == set(severe_events())


def test_metrics_of_alarms_exist() -> None:
    metrics = TOP / "roles/ag_ui_deployment/files/backend/src/utils/metrics.py"
    defined = metrics.read_text(encoding="utf-8") + BACKUP_METRICS.read_text(encoding="utf-8")
    named = set(re.findall(r"\bag_ui_[a-z_]+", section("Alarms")))
    assert named
    assert {name for name in named if name.removesuffix("_bucket") not in defined} == set()
