"""Check mode reports no change if nothing would change, and otherwise the changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.playbook import run_playbook

if TYPE_CHECKING:
    from tests.scenarios.support.site import Site
    from tests.support.playbook import Run


def dry_run(inventory: str, *options: str) -> Run:
    arguments = ("-i", inventory, "--check", "--diff", *options, "site.yml")
    run = run_playbook(*arguments, timeout=300)
    assert run.code == 0, run.output
    return run


def test_check_mode_reports_no_change_on_a_deployed_site(site: Site, inventory: str) -> None:
    run = dry_run(inventory)
    hosts = (site.dev.inventory_name, site.datastores.inventory_name)
    assert run.changes == dict.fromkeys(hosts, 0)
    assert run.diffs == []


def test_check_mode_reports_a_changed_setting_and_changes_nothing(
    site: Site, inventory: str
) -> None:
    def state() -> str:
        return site.dev.run(
            "sh",
            "-c",
            "find /etc/ag-ui -type f -exec md5sum {} +; docker ps --no-trunc --quiet --filter name=ag-ui",
        )

    before = state()
    run = dry_run(inventory, "-e", "ag_ui_log_level=DEBUG")
    assert run.changes[site.dev.inventory_name] > 0
    assert run.changes[site.datastores.inventory_name] == 0
    assert state() == before
