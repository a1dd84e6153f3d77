"""A new release during streams, requests and a steady flow of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scenarios.support.deployment import deploy
from tests.scenarios.support.request_load import RequestLoad

if TYPE_CHECKING:
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.site import Account, Site


def test_changed_release_fails_no_request_and_loses_no_event(
    site: Site, inventory: str, admin: Account, under_load: ExperimentFactory
) -> None:
    """Instances are replaced one after the other, so that one always serves."""
    instances = {f"instance {port}" for port in site.ports}
    with (
        under_load("changed_release", restarts=instances, cuts_streams=True),
        RequestLoad(site.proxy, "/auth/me", admin.token) as load,
    ):
        done = deploy(inventory, {"ag_ui_log_level": "WARNING"})
        assert done.code == 0, done.output
    assert load.failed == []
    assert load.answered > 0
    done = deploy(inventory)
    assert done.code == 0, done.output
    site.wait_until_healthy()
