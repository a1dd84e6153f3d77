"""The alarms in docs/operations.md have every event of the log and the rules of Prometheus."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import yaml  # type: ignore[import-untyped]

from tests.support.pages import section
from tests.support.playbook import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = sorted(TOP.glob("roles/ag_ui_deployment/files/backend/src/**/*.py"))
RULES = TOP / "roles/ag_ui_deployment/files/observability/alert-rules.yml"
# Name, expression, minutes, severity and remedy of an alarm.
ALARM = re.compile(
    r"^\| `(AgUi\w+)` \| `([^`]+)`(?: for (\d+) minutes)? \| (\w+) \| [^|]+ \| (.+) \|$",
    re.MULTILINE,
)
SEVERE = {"warning", "error", "exception", "critical"}


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


def test_table_of_alarms_has_the_rules() -> None:
    """The runbook of a rule is the section that its remedy refers to, or else the table."""
    documented = []
    for name, expression, minutes, severity, remedy in ALARM.findall(section("Alarms")):
        link = re.search(r"\]\(#([\w-]+)\)", remedy)
        runbook = f"docs/operations.md#{link[1] if link else 'alarms'}"
        documented.append((name, expression, minutes and f"{minutes}m", severity, runbook))
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    assert documented == [
        (
            rule["alert"],
            rule["expr"],
            rule.get("for", ""),
            rule["labels"]["severity"],
            rule["annotations"]["runbook"],
        )
        for rule in group["rules"]
    ]
