"""Check mode succeeds on a host that has the packages and no deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.dry_run import BareHost, dry_run

if TYPE_CHECKING:
    from pathlib import Path


def test_check_mode_succeeds_on_a_host_without_a_deployment(tmp_path: Path) -> None:
    """The group, units, directories and image that a deployment creates are missing."""
    host = BareHost(tmp_path)
    before = host.files()
    run = dry_run(host, "ag_ui_deployment")
    assert run.code == 0, run.output
    assert "ag_ui_deployment : Release | Report what a deployment would change" in run.tasks
    assert host.files() == before
    assert not (tmp_path / "etc").exists()
