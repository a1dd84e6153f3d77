"""Redis restarts, hangs, loses its data, or refuses writes."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.resilience.faults import main_pid, suspended
from tests.scenarios.support.http import request
from tests.scenarios.support.process_metrics import counted
from tests.scenarios.support.site import GROUP
from tests.shield import STREAM
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.site import Site

REDIS = "redis-server.service"
SUSPENSION = 30.0
REFUSAL = 5.0
UNREAD = 400
KEPT = 100
TRIMMED_UNREAD = 'ag_ui_entries_lost_total{how="trimmed_unread"}'
STREAM_GONE = 'ag_ui_entries_lost_total{how="stream_gone"}'


@contextmanager
def group_behind(site: Site) -> Iterator[None]:
    """Hold undelivered entries in the stream for the duration of the block."""
    with site.database_locked():
        eventually(
            lambda: (site.group()["lag"] or 0) >= UNREAD, "a group that is behind", within=30
        )
        yield


@contextmanager
def configured(site: Site, name: str, value: str) -> Iterator[None]:
    """Change a setting of Redis for the duration of the block."""
    before = str(site.redis.config_get(name)[name])
    site.redis.config_set(name, value)
    try:
        yield
    finally:
        site.redis.config_set(name, before)


def health_detail_contains(site: Site, words: str) -> bool:
    """Whether an instance's health report of its consumer contains these words."""
    reports = [request(instance, "GET", "/health").json() for instance in site.instances]
    return any(words in report["checks"]["consumer"]["detail"] for report in reports)


def test_restart_of_redis_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    with under_load("restart_of_redis", restarts={"redis"}):
        site.datastores.systemctl("restart", REDIS)


def test_suspended_redis_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    """Redis accepts connections and answers nothing."""
    with (
        under_load("standstill_of_redis"),
        suspended(site.datastores, main_pid(site.datastores, REDIS)),
    ):
        began = time.monotonic()
        eventually(lambda: site.health()["status"] == "degraded", "degraded", within=10)
        time.sleep(began + SUSPENSION - time.monotonic())


def test_flush_of_redis_is_reported_to_health_and_clients(
    site: Site, under_load: ExperimentFactory
) -> None:
    """Unread entries are lost and reported; clients whose position is gone are notified."""
    instances = {f"instance {port}" for port in site.ports}
    with under_load(
        "flush_of_redis", restarts=instances, cuts_streams=True, may_lose=True
    ) as experiment:
        before = counted(site)
        with ExitStack() as quiet:
            with group_behind(site):
                quiet.enter_context(experiment.load.paused())
                experiment.wait_until_received(len(experiment.load.log), within=10)
                site.redis.flushall()
            eventually(
                lambda: counted(site)[STREAM_GONE] > before[STREAM_GONE],
                "the loss counted",
                within=20,
            )
            assert experiment.logged("entries_lost")
            assert health_detail_contains(site, "lost")
            for port in site.ports:
                site.dev.systemctl("restart", site.unit(port))
            eventually(
                lambda: all(experiment.gaps().values()), "a gap notice for every client", within=30
            )
        assert all(
            '"unknown"' in notice for notices in experiment.gaps().values() for notice in notices
        )
    assert experiment.lost


def test_destroyed_group_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    with under_load("group_destroyed"):
        site.redis.xgroup_destroy(STREAM, GROUP)


def test_entries_trimmed_before_delivery_are_counted_and_logged(
    site: Site, under_load: ExperimentFactory
) -> None:
    """Entries that are trimmed before delivery are counted one by one and logged."""
    with under_load("trimmed_unread", may_lose=True) as experiment:
        before = counted(site)
        with group_behind(site):
            site.redis.xtrim(STREAM, maxlen=KEPT, approximate=False)
    assert len(experiment.lost) >= UNREAD - KEPT
    assert counted(site)[TRIMMED_UNREAD] - before[TRIMMED_UNREAD] == len(experiment.lost)
    assert experiment.logged("entries_lost")
    assert health_detail_contains(site, str(len(experiment.lost)))


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "1")])
def test_refused_writes_lose_no_event(
    site: Site, under_load: ExperimentFactory, setting: str, value: str
) -> None:
    """Without memory Redis refuses new entries; without replicas it also refuses deliveries."""
    with under_load(f"refusal_by_{setting.replace('-', '_')}") as experiment:
        with configured(site, setting, value):
            refused = len(experiment.load.log) + 1
            time.sleep(REFUSAL)
            assert len(experiment.load.log) <= refused, "Redis takes writes"
        experiment.wait_for_events(1)
