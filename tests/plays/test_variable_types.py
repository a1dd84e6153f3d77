"""Values are converted to their specified type: `-e name=value` passes every value as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.role_templates import ROLE, inventory, render
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = sorted((ROLE / "templates").glob("*.j2"))


def as_text(value: object) -> str:
    """Format a value for `-e name=`."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def numbers_and_more() -> dict[str, Any]:
    """Return the defaults of variables that are numbers, booleans or lists of plain values."""
    defaults: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    return {
        name: value
        for name, value in defaults.items()
        if isinstance(value, bool | int | list) and "{{" not in str(value)
    }


def test_strings_from_the_command_line_render_like_typed_values(tmp_path: Path) -> None:
    every_template = tmp_path / "all.j2"
    every_template.write_text(
        "\n".join(f"{{{{ lookup('ansible.builtin.template', '{path}') }}}}" for path in TEMPLATES)
    )
    values = numbers_and_more()
    texts = [f"{name}={as_text(value)}" for name, value in values.items()]
    hosts = inventory({"alone": {"alone-1": {}}}, REQUIRED_VARIABLES)
    found = []
    for name, extra in (("typed", [json.dumps(values)]), ("texts", texts)):
        folder = tmp_path / name
        folder.mkdir()
        render(folder, str(every_template), hosts, *extra)
        found.append((folder / "alone-1").read_text().splitlines())
    assert found[0] == found[1]
    assert "    limit_req zone=ag_ui_requests burst=200 nodelay;" in found[0]
