"""The result of the last backup: a JSON file, and metrics for Prometheus' node exporter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .settings import Settings

FILE = "backup.json"
METRICS = "ag-ui-backup.prom"
_METRICS = {
    "ag_ui_backup_ok": ("outcome", "Whether the last backup succeeded"),
    "ag_ui_backup_last_run_timestamp_seconds": ("finished", "When the last backup ended"),
    "ag_ui_backup_last_success_timestamp_seconds": (
        "succeeded",
        "When the last successful backup ended; 0 if there is none",
    ),
    "ag_ui_backup_duration_seconds": ("seconds", "Duration of the last backup"),
    "ag_ui_backup_size_bytes": ("size", "Size of the last successful archive"),
    "ag_ui_backup_archives": ("archives", "Archives on this host"),
}


def read(settings: Settings) -> dict[str, Any]:
    """Return the result of the last backup; empty if there is none."""
    try:
        result: dict[str, Any] = json.loads((settings.state / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result


def write(settings: Settings, result: Mapping[str, Any]) -> None:
    """Store the result, and the metrics if the directory of the node exporter exists."""
    write_atomically(settings.state / FILE, json.dumps(result, indent=1) + "\n", 0o600)
    if settings.metrics.is_dir():
        write_atomically(settings.metrics / METRICS, exposition(result), 0o644)


def exposition(result: Mapping[str, Any]) -> str:
    """Return the metrics in the text format of Prometheus."""
    lines = []
    for name, (key, text) in _METRICS.items():
        value = result.get(key) or 0
        number = int(value == "ok") if key == "outcome" else value
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {number}"]
    return "\n".join(lines) + "\n"


# Not that of plugins/module_utils: on the controller, this package runs without the collection.
def write_atomically(path: Path, text: str, mode: int) -> None:
    """Replace a file, so that a reader sees the old content or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)
