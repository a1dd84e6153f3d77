"""Reload and restart of nginx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.site import Site

OLD_WORKERS_GONE = 30.0


def workers(site: Site) -> set[str]:
    """Return the process ids of nginx's workers."""
    return set(site.dev.run("pgrep", "--full", "nginx: worker process").split())


def test_reload_of_the_proxy_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    """Streams stay with the old workers for a while.

    Then their clients resume with the new ones.
    """
    with under_load("reload_of_the_proxy", cuts_streams=True):
        before = workers(site)
        site.dev.systemctl("reload", "nginx.service")
        eventually(lambda: not before & workers(site), "new workers", within=OLD_WORKERS_GONE)


def test_restart_of_the_proxy_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    with under_load("restart_of_the_proxy", restarts={"nginx"}, cuts_streams=True):
        site.dev.systemctl("restart", "nginx.service")
