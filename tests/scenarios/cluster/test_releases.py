"""A release rolls over the hosts. By now other servers of Redis and PostgreSQL are the primaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scenarios.support.deployment import deploy
from tests.scenarios.support.request_load import RequestLoad

if TYPE_CHECKING:
    from tests.scenarios.cluster.cluster import ClusterSite
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.site import Account


def test_rolling_release_fails_no_request_and_loses_no_event(
    hosts: list[ClusterSite],
    site: ClusterSite,
    inventory: str,
    admin: Account,
    under_load: ExperimentFactory,
) -> None:
    before = [release_of(host) for host in hosts]
    instances = {f"instance {port}" for port in site.ports}
    with (
        under_load("rolling_release", restarts=instances, cuts_streams=True),
        # Not at the common address: keepalived moves it if the machine is too busy, which cuts requests.
        RequestLoad(hosts[0].proxy, "/auth/me", admin.token) as first,
        RequestLoad(hosts[1].proxy, "/auth/me", admin.token) as second,
    ):
        done = deploy(inventory, {"ag_ui_audit_retention_days": 91})
        assert done.code == 0, done.output
    assert (first.failed, second.failed) == ([], [])
    assert min(first.answered, second.answered) > 0
    assert all(release_of(host) != former for host, former in zip(hosts, before, strict=True))


def release_of(host: ClusterSite) -> str:
    return host.dev.run("readlink", "/etc/ag-ui/current")
