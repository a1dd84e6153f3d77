"""A dry run tells the truth: nothing where nothing would change, and what would change where it would."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.scenarios.support.site import Site

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def inventory(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("ansible_inventory"))


def dry_run(inventory: str, *options: str) -> tuple[str, dict[str, int]]:
    """What a dry run says, and how many changes it announces for each host."""
    done = subprocess.run(
        ["ansible-playbook", "-i", inventory, "--check", "--diff", *options, "site.yml"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    changes = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", recap, re.MULTILINE)
    return done.stdout, {host: int(number) for host, number in changes}


def test_nothing_on_a_deployed_site(site: Site, inventory: str) -> None:
    told, changes = dry_run(inventory)
    assert changes == dict.fromkeys((site.dev.inventory_name, site.datastores.inventory_name), 0)
    assert "+++" not in told


def test_a_setting_that_would_change(site: Site, inventory: str) -> None:
    def state() -> str:
        return site.dev.run(
            "sh", "-c", "md5sum /etc/ag-ui/*.env; docker ps --no-trunc --quiet --filter name=ag-ui"
        )

    before = state()
    _, changes = dry_run(inventory, "-e", "ag_ui_log_level=DEBUG")
    assert changes[site.dev.inventory_name] > 0
    assert changes[site.datastores.inventory_name] == 0
    assert state() == before
