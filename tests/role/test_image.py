"""The deployment passes the version to the image build."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.metadata import backend_version
from tests.support.role_templates import inventory, render
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path


def test_build_gets_the_version_of_the_backend(tmp_path: Path) -> None:
    template = tmp_path / "arguments.j2"
    template.write_text("{{ __ag_ui_build_arguments | to_json }}")
    folder = tmp_path / "rendered"
    folder.mkdir()
    render(folder, str(template), inventory({"alone": {"alone-1": {}}}, REQUIRED_VARIABLES))
    arguments = json.loads((folder / "alone-1").read_text())
    assert arguments["VERSION"] == backend_version()
