"""PostgreSQL restarts, is down, has no connections or disk space left, or deadlocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.scenarios.resilience.faults import Session, database_full, disk_full
from tests.scenarios.support.jobs import Job
from tests.shield import MAXLEN
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.experiment import Experiment, ExperimentFactory
    from tests.scenarios.support.site import Site

OUTAGE = 60.0
FULL = 10.0
LOG = "/var/log/postgresql/*.log"

DEADLOCK = """
BEGIN;
SET LOCAL deadlock_timeout = '60s';
SELECT FROM jobs WHERE id = '{second}' FOR UPDATE;
"""
WAIT_AND_CROSS = """
DO $$ BEGIN
    WHILE NOT EXISTS (
        SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))
    ) LOOP
        PERFORM pg_sleep(0.01);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
END $$;
SELECT FROM jobs WHERE id = '{first}' FOR UPDATE;
COMMIT;
"""


def consumer_is_waiting(site: Site) -> bool:
    """Whether an instance reports that it cannot store events."""
    checks = site.health().get("checks", {})
    return bool(checks) and checks["consumer"]["status"] != "ok"


def check_live_streams_continue(experiment: Experiment) -> None:
    """Clients receive new events regardless of PostgreSQL."""
    experiment.wait_until_received(len(experiment.load.log) + 200, within=10)


def test_restart_of_postgresql_loses_no_event(site: Site, under_load: ExperimentFactory) -> None:
    [unit] = site.datastore_units("postgresql")
    with under_load("restart_of_postgresql", restarts={"postgresql"}):
        site.datastores.systemctl("restart", unit)


def test_live_streams_continue_without_postgresql(
    site: Site, under_load: ExperimentFactory
) -> None:
    """The stream must hold all events of the outage, or Redis trims them unread."""
    units = site.datastore_units("postgresql")
    with (
        under_load(
            "minute_without_postgresql", restarts={"postgresql"}, maxlen=3 * MAXLEN
        ) as experiment,
        site.datastores.stopped(*units),
    ):
        began = time.monotonic()
        eventually(lambda: consumer_is_waiting(site), "a consumer that waits", within=20)
        check_live_streams_continue(experiment)
        time.sleep(began + OUTAGE - time.monotonic())
        check_live_streams_continue(experiment)


def test_live_streams_continue_at_the_connection_limit(
    site: Site, under_load: ExperimentFactory
) -> None:
    with under_load("connection_limit") as experiment, database_full(site):
        began = time.monotonic()
        answer = site.ask_for_token("contributor@example.com", "whatever it may be")
        assert answer.status == 503
        eventually(lambda: consumer_is_waiting(site), "a consumer that waits", within=20)
        check_live_streams_continue(experiment)
        time.sleep(max(0.0, began + FULL - time.monotonic()))


def test_consumer_retries_after_a_deadlock(site: Site, under_load: ExperimentFactory) -> None:
    """Another session locks the rows of two jobs in the opposite order.

    The consumer has to yield.
    """
    with under_load("deadlock") as experiment, Session(site) as rival:
        first, second = sorted((Job(), Job()), key=lambda job: job.id)
        experiment.load.publish_together([first.started(), second.started()])
        eventually(lambda: site.stored(first.id) and site.stored(second.id), "stored", within=10)
        rival.run(DEADLOCK.format(second=second.id))
        rival.begin(WAIT_AND_CROSS.format(first=first.id))
        experiment.load.publish_together([first.chunk(), second.chunk()])
        rival.end()
        experiment.load.publish_together([first.complete(), second.complete()])
        assert any(
            "eadlock" in str(line["error"])
            for line in experiment.logged("consumer_waits_for_database")
        )


def test_live_streams_continue_while_the_disk_is_full(
    site: Site, under_load: ExperimentFactory
) -> None:
    [unit] = site.datastore_units("postgresql")
    with under_load("disk_full") as experiment:
        with disk_full(site):
            began = time.monotonic()
            eventually(lambda: consumer_is_waiting(site), "a consumer that waits", within=20)
            check_live_streams_continue(experiment)
            time.sleep(max(0.0, began + FULL - time.monotonic()))
        assert site.datastores.host.run(f"grep --quiet 'No space left on device' {LOG}").rc == 0
        assert site.datastores.is_active(unit)
