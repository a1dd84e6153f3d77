"""Redis restarts, hangs, loses its data, or refuses writes."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.resilience.faults import main_pid, standing_still
from tests.scenarios.support.http import request
from tests.scenarios.support.process_metrics import counted
from tests.scenarios.support.site import GROUP
from tests.scenarios.support.waiting import eventually
from tests.shield import STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.site import Site
    from tests.scenarios.support.trial import UnderLoad

REDIS = "redis-server.service"
STANDSTILL = 30.0
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


def told_by_health(site: Site, words: str) -> bool:
    """Whether an instance's health report of its consumer contains these words."""
    reports = [request(instance, "GET", "/health").json() for instance in site.instances]
    return any(words in report["checks"]["consumer"]["detail"] for report in reports)


def test_restart_of_redis_loses_no_event(site: Site, under_load: UnderLoad) -> None:
    with under_load("restart_of_redis", restarts={"redis"}):
        site.datastores.systemctl("restart", REDIS)


def test_suspended_redis_loses_no_event(site: Site, under_load: UnderLoad) -> None:
    """Redis accepts connections and answers nothing."""
    with (
        under_load("standstill_of_redis"),
        standing_still(site.datastores, main_pid(site.datastores, REDIS)),
    ):
        began = time.monotonic()
        eventually(lambda: site.health()["status"] == "degraded", "degraded", within=10)
        time.sleep(began + STANDSTILL - time.monotonic())


def test_flush_of_redis_is_reported_to_health_and_clients(
    site: Site, under_load: UnderLoad
) -> None:
    """Unread entries are lost and reported; clients whose position is gone are notified."""
    instances = {f"instance {port}" for port in site.ports}
    with under_load(
        "flush_of_redis", restarts=instances, cuts_streams=True, may_lose=True
    ) as trial:
        before = counted(site)
        with ExitStack() as quiet:
            with group_behind(site):
                quiet.enter_context(trial.load.paused())
                trial.wait_until_seen(len(trial.load.log), within=10)
                site.redis.flushall()
            eventually(
                lambda: counted(site)[STREAM_GONE] > before[STREAM_GONE],
                "the loss counted",
                within=20,
            )
            assert trial.logged("entries_lost")
            assert told_by_health(site, "lost")
            for port in site.ports:
                site.dev.systemctl("restart", site.unit(port))
            eventually(lambda: all(trial.gaps().values()), "all clients told", within=30)
        assert all('"unknown"' in notice for notices in trial.gaps().values() for notice in notices)
    assert trial.lost


def test_destroyed_group_loses_no_event(site: Site, under_load: UnderLoad) -> None:
    with under_load("group_destroyed"):
        site.redis.xgroup_destroy(STREAM, GROUP)


def test_entries_trimmed_before_delivery_are_counted_and_logged(
    site: Site, under_load: UnderLoad
) -> None:
    """Entries that are trimmed before delivery are counted one by one and logged."""
    with under_load("trimmed_unread", may_lose=True) as trial:
        before = counted(site)
        with group_behind(site):
            site.redis.xtrim(STREAM, maxlen=KEPT, approximate=False)
    assert len(trial.lost) >= UNREAD - KEPT
    assert counted(site)[TRIMMED_UNREAD] - before[TRIMMED_UNREAD] == len(trial.lost)
    assert trial.logged("entries_lost")
    assert told_by_health(site, str(len(trial.lost)))


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "1")])
def test_refused_writes_lose_no_event(
    site: Site, under_load: UnderLoad, setting: str, value: str
) -> None:
    """Without memory Redis refuses new entries; without replicas it also refuses deliveries."""
    with under_load(f"refusal_by_{setting.replace('-', '_')}") as trial:
        with configured(site, setting, value):
            refused = len(trial.load.log) + 1
            time.sleep(REFUSAL)
            assert len(trial.load.log) <= refused, "Redis takes writes"
        trial.wait_for_events(1)
